"""Formulas broken on purpose: one small edit each, and the checks that should notice it."""

from typing import NamedTuple

DIVERGENCES = ("tests/divergences",)
TRANSPORT = ("tests/transport",)
GRADIENTS, LINES = ("gradients",), ("parallel_lines",)


class Mutant(NamedTuple):
    """One edit of one file.

    `old` occurs exactly once in the file. `chapters` are verified (as by `kdtheory verify`), `tests` are run; a mutant
    counts as caught if either fails. `survives` is for an edit that changes nothing: why it must not be caught.
    """

    what: str
    file: str
    old: str
    new: str
    chapters: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    survives: str = ""


def _definition(what: str, old: str, new: str) -> Mutant:
    return Mutant(what, "kdtheory/divergences/definitions.py", old, new, GRADIENTS, DIVERGENCES)


def _derivation(what: str, old: str, new: str) -> Mutant:
    return Mutant(what, "kdtheory/divergences/derive.py", old, new, GRADIENTS, DIVERGENCES)


def _fast(what: str, old: str, new: str, file: str = "logspace") -> Mutant:
    return Mutant(what, f"kdtheory/divergences/{file}.py", old, new, (), DIVERGENCES)


def _transport(what: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(what, f"kdtheory/transport/{file}.py", old, new, (), TRANSPORT)


def _simplex(what: str, old: str, new: str) -> Mutant:
    return Mutant(what, "kdtheory/simplex.py", old, new, (), ("tests/test_simplex.py",))


def _claim(what: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(what, f"kdtheory/claims/{file}.py", old, new, (file.partition("/")[0],), ())


DEFINITIONS = (
    _definition("forward KL with p and q swapped", "term=p * sp.log(p / q),", "term=q * sp.log(q / p),"),
    _definition("reverse KL's ratio inverted", "term=q * sp.log(q / p),", "term=q * sp.log(p / q),"),
    _definition(
        "JSD's weights swapped",
        "term=beta * p * sp.log(p / m) + (1 - beta)",
        "term=(1 - beta) * p * sp.log(p / m) + beta",
    ),
    _definition("JSD's mixture swapped", "mixture=beta * p + (1 - beta) * q,", "mixture=beta * q + (1 - beta) * p,"),
    _definition("total variation without ½", "term=sp.Abs(p - q) / 2,", "term=sp.Abs(p - q),"),
    _definition(
        "skew KL's mixture swapped", "mixture=alpha * p + (1 - alpha) * q,", "mixture=alpha * q + (1 - alpha) * p + 0,"
    ),
    _definition(
        "skew reverse KL's mixture swapped",
        "mixture=alpha * q + (1 - alpha) * p,",
        "mixture=alpha * p + (1 - alpha) * q + 0,",
    ),
    _definition("χ² with q in the numerator", "term=p**2 / q - p,", "term=q**2 / p - p + 0,"),
    _definition("Neyman's χ² with a factor ½", "term=q**2 / p - p,", "term=q**2 / (2 * p) - p,"),
    _definition("Hellinger with a factor 2", "term=p - sp.sqrt(p * q),", "term=2 * (p - sp.sqrt(p * q)),"),
    _definition(
        "Amari with α and 1 - α swapped",
        "term=(p - p**alpha * q ** (1 - alpha)) /",
        "term=(p - p ** (1 - alpha) * q**alpha) /",
    ),
    _definition("Amari without its factor", "/ (alpha * (1 - alpha)),", "/ alpha,"),
    _definition("Rényi's sign", "outer=sp.log(S) / (alpha - 1),", "outer=sp.log(S) / (1 - alpha),"),
    _definition(
        "χ²'s exponent in the fast gradient",
        "power_gradient(pair, kappa=2, scale=1.0)",
        "power_gradient(pair, kappa=2, scale=2.0)",
    ),
    _definition(
        "Hellinger's scale in the fast gradient",
        "power_gradient(pair, kappa=0.5, scale=0.5)",
        "power_gradient(pair, kappa=0.5, scale=1.0)",
    ),
    _definition("Amari's scale in the fast gradient", "kappa=alpha, scale=1 / alpha)", "kappa=alpha, scale=1.0)"),
)
DERIVATIONS = (
    _derivation(
        "chain rule adds the mean",
        "return [own.subs(pair) - pair[q] * shared",
        "return [own.subs(pair) + pair[q] * shared",
    ),
    _derivation(
        "mixture's inner derivative dropped",
        "inner += sp.diff(record.term, m) * sp.diff(record.mixture, q)",
        "inner += sp.diff(record.term, m)",
    ),
    _derivation(
        "weight of a drawn token divided by the wrong law",
        "TokenWeights(tidy(g / p, record.mixture), tidy(g / q",
        "TokenWeights(tidy(g / q, record.mixture), tidy(g / q",
    ),
    _derivation("curvature without p", "sp.simplify((p * sp.diff(", "sp.simplify((sp.diff("),
    _derivation(
        "simplex gradient minus the sum of the slopes", "value - sum(values) / sp.Integer(size)", "value - sum(values)"
    ),
)
FAST = (
    _fast(
        "forward KL's linear term",
        "pair.above, pair.below) + pair.difference)",
        "pair.above, pair.below) - pair.difference)",
    ),
    _fast(
        "forward KL's gradient, sign",
        "return closed(scale * (pair.q - pair.p), pair)",
        "return closed(scale * (pair.p - pair.q), pair)",
    ),
    _fast("reverse KL's slope, sign", "    return -pair.log_ratio\n", "    return pair.log_ratio\n"),
    _fast(
        "JSD's slope, weight",
        "return (beta - 1) * (pair.log_mixture(beta) + pair.above)",
        "return -beta * (pair.log_mixture(beta) + pair.above)",
    ),
    _fast(
        "total variation's slope without ½",
        "return -0.5 * torch.sign(pair.log_ratio)",
        "return -torch.sign(pair.log_ratio)",
    ),
    _fast("skew KL's slope, weight", "return (alpha - 1) * torch.expm1(", "return -alpha * torch.expm1("),
    _fast(
        "skew reverse KL's slope without its second term",
        "return -over_q - alpha * torch.expm1(-over_q)",
        "return -over_q",
    ),
    _fast("Neyman's slope, factor", "return 2 * torch.expm1(-pair.log_ratio)", "return torch.expm1(-pair.log_ratio)"),
    _fast("Neyman's gradient, exponent", "kappa=-1, scale=-2.0", "kappa=-1, scale=-1.0"),
    _fast("χ²'s value, exponent", "(pair.log_q + 2 * pair.above, math.inf)", "(pair.log_q + pair.above, math.inf)"),
    _fast(
        "centring by the plain mean",
        "closed(flow - pair.q * flow.sum(-1, keepdim=True), pair)",
        "closed(flow - flow.mean(-1, keepdim=True), pair)",
    ),
    _fast(
        "largest token not closed",
        "    rest = -gradient.scatter_(-1, top, 0.0)",
        "    rest = gradient.scatter_(-1, top, 0.0)",
    ),
    _fast("limit where p = 0, sign", "torch.sign(order) * math.inf)", "-torch.sign(order) * math.inf)"),
    _fast(
        "Rényi's weights",
        "log_s = alpha * pair.log_p + (1 - alpha) * pair.log_q",
        "log_s = alpha * pair.log_q + (1 - alpha) * pair.log_p",
        "renyi",
    ),
    _fast(
        "Rényi's slope, exponent",
        "torch.expm1(alpha * pair.log_ratio - log_total)",
        "torch.expm1(pair.log_ratio - log_total)",
        "renyi",
    ),
    _fast("AKL's weights exchanged", "return forward, 1 - forward", "return 1 - forward, forward", "akl"),
    _fast("AKL's head includes one token too few", "count = (before <= mu)", "count = (before < mu)", "akl"),
    _fast("temperature's power in a sum", "+ scale / part.temperature * slope", "+ scale * slope", "combination"),
)
TRANSPORTS = (
    _transport("potential on a line, sign", "closed_forms", "return -torch.cat([torch", "return torch.cat([torch"),
    _transport(
        "line without absolute value", "closed_forms", "(surplus.abs() * gaps).sum(-1)", "(surplus * gaps).sum(-1)"
    ),
    _transport("0-1 cost without ½", "closed_forms", "0.5 * difference.abs().sum(-1)", "difference.abs().sum(-1)"),
    _transport(
        "tree: surplus below the wrong edge",
        "closed_forms",
        "tree.ancestor_sums(lengths * torch.sign(surplus))",
        "tree.ancestor_sums(torch.sign(surplus))",
    ),
    _transport(
        "teacher's potential handed to the student",
        "exact",
        "return _ordered(mass * primal, lower, mass * slack, f, -f)",
        "return _ordered(mass * primal, lower, mass * slack, f, f)",
    ),
    _transport(
        "mass of the reduced problem forgotten", "exact", "_ordered(mass * primal, lower", "_ordered(primal, lower"
    ),
    _transport(
        "rows and columns exchanged",
        "exact",
        "_network_simplex(a, b, to_demand[supply])\n    f = (to_demand - v).min(1)\n    g",
        "_network_simplex(b, a, to_demand[supply].T)\n    f = (to_demand - v).min(1)\n    g",
    ),
)
SIMPLEX = (
    _simplex("Fisher-Rao distance on the unit sphere", "return 4 * np.arcsin(", "return 2 * np.arcsin("),
    _simplex(
        "softmax Jacobian's sign", "(np.eye(q.shape[-1]) - q[..., None, :])", "(np.eye(q.shape[-1]) + q[..., None, :])"
    ),
)
CLAIMS = (
    _claim(
        "reverse KL's slope as printed", "gradients/reverse_kl", "right=sp.log(q / p) + 1)", "right=sp.log(q / p) - 1)"
    ),
    _claim(
        "an added constant that is none",
        "gradients/reverse_kl",
        "return _unbiased(lambda a, b: c)",
        "return _unbiased(lambda a, b: c * b)",
    ),
    _claim(
        "total variation's forms without ½",
        "gradients/total_variation",
        "*_summand(sp.Rational(1, 2)),",
        "*_summand(sp.Rational(1, 3)),",
    ),
    _claim(
        "weight of a token drawn for forward KL, sign",
        "gradients/forward_kl",
        "weights = [-1 / b for b in student.q]",
        "weights = [1 / b for b in student.q]",
    ),
    _claim(
        "skew KL's weight",
        "gradients/skew_kl",
        "symbolic.identity(weight, -(1 - alpha) / _mixed",
        "symbolic.identity(weight, -alpha / _mixed",
    ),
    _claim(
        "bounded slopes with the factor 1", "gradients/chain_rule", "_bound_fails_by(2.0),", "_bound_fails_by(1.0),"
    ),
    _claim(
        "chain rule with the plain mean",
        "gradients/chain_rule",
        "return q_[0] * (g[0] - oracles.expectation(q_, g))",
        "return q_[0] * (g[0] - sum(g) / 3)",
    ),
    _claim(
        "distance of the lines with an offset",
        "parallel_lines/lines",
        "return attempt_matching(0.0)",
        "return attempt_matching(0.1)",
    ),
    _claim(
        "slope of the blurred KL",
        "parallel_lines/smoothed",
        'abs(slope["kl"] - theta / s**2)',
        'abs(slope["kl"] - theta / s)',
    ),
    _claim(
        "a control that must fail is made to hold",
        "gradients/reverse_kl",
        "right=q / p + 1)",
        "right=sp.log(q / p) + 1)  #",
    ),
    _claim(
        "transport's gradient, sign of the potential",
        "gradients/wasserstein",
        "        _attempt_gradient(1),",
        "        _attempt_gradient(-1),",
    ),
)
MUTANTS = (*DEFINITIONS, *DERIVATIONS, *FAST, *TRANSPORTS, *SIMPLEX, *CLAIMS)
