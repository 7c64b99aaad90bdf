"""Formulas of the claims of sections 7.1 to 7.5, and of the oracles that they rest on."""

from tests.mutations.mutants.kinds import Mutant, claim, oracle


def _transport(what: str, file: str, old: str, new: str, *slugs: str) -> Mutant:
    return claim(what, f"transport/{file}", old, new, *(f"transport.{slug}" for slug in slugs))


PROGRAMMES = (
    _transport(
        "Scoins' exponents exchanged",
        "program",
        "m ** (n - 1) * n ** (m - 1)",
        "m ** (m - 1) * n ** (n - 1)",
        "linear-programme",
    ),
    _transport(
        "order's root forgotten", "program", "value ** (1 / order) if rooted", "value if rooted", "wasserstein-order"
    ),
    _transport("prices completed upwards", "duality", "(cost - g).min(axis=1)", "(cost - g).max(axis=1)", "duality"),
    _transport(
        "slackness, sign of the student's price",
        "duality",
        "_COST[i][j] - f[i] - g[j]",
        "_COST[i][j] - f[i] + g[j]",
        "duality",
    ),
    _transport(
        "the whole excess over the triangle", "reduction", "float(excess / 2 - gap)", "float(excess - gap)", "reduction"
    ),
    _transport(
        "JSD against the teacher",
        "global_features",
        "(_kl(p, m) + _kl(q, m)) / 2",
        "(_kl(p, p) + _kl(q, p)) / 2 + (p[1] - q[1])",
        "global-features",
    ),
    _transport(
        "law to which a dropped column moves, sign",
        "inexact",
        "q - excess * np.eye(n)[k]",
        "q + excess * np.eye(n)[k]",
        "float-marginals",
    ),
    _transport(
        "repair of the columns for nothing",
        "inexact",
        ".sum() + np.maximum(plan.sum(0) - q, 0).sum()",
        ".sum()",
        "plan-repair",
    ),
    _transport(
        "shortest paths without what was walked",
        "certificates",
        "time[piece[i]] + slack[i][j]",
        "slack[i][j]",
        "basis-completion",
    ),
)
ITERATIONS = (
    _transport(
        "the printed update taken for the right one",
        "iterations",
        "back = kernel.T if transpose else kernel",
        "back = kernel",
        "sinkhorn-update",
    ),
    _transport(
        "odd steps multiplied by c", "two_cycle", "np.abs(odd * c - target)", "np.abs(odd / c - target)", "two-cycle"
    ),
    _transport("c of the even kernel halved", "two_cycle", "_ninety_ten(2 * (1", "_ninety_ten(1 * (1", "two-cycle"),
    _transport(
        "columns of the transposed kernel without μ",
        "two_cycle",
        "columns = mu * q",
        "columns = q",
        "transposed-kernel",
    ),
    _transport(
        "drift per sweep inverted", "two_cycle", "np.abs(grown / mu - 1)", "np.abs(grown * mu - 1)", "transposed-kernel"
    ),
    _transport(
        "Birkhoff's constant tanh(Δ/5)", "convergence", "np.tanh(angle / 4)", "np.tanh(angle / 5)", "contraction"
    ),
    _transport("a sweep contracts by κ⁴", "convergence", "kappa**2 * away", "kappa**4 * away", "contraction"),
    _transport("Δ of a metric is its diameter", "convergence", "*_metric_angle(2)", "*_metric_angle(1)", "contraction"),
    _transport(
        "gap of an iterate without ε", "convergence", "abs(gap - epsilon * float(rel", "abs(gap - float(rel", "stopping"
    ),
    _transport(
        "gap bounded by a quarter of Δ_C δ",
        "convergence",
        "gap - near * share * angle * delta / 2",
        "gap - near * share * angle * delta / 4",
        "stopping",
    ),
    _transport(
        "completed prices without ε",
        "convergence",
        "float(f @ p + g @ q) + epsilon * finite.entropy(q) - lower",
        "float(f @ p + g @ q) + finite.entropy(q) - lower",
        "stopping",
    ),
    _transport(
        "error after l sweeps, inverted",
        "convergence",
        'share * 2 * angle / (epsilon * len(at["errors"]))',
        'share * 2 * epsilon / (angle * len(at["errors"]))',
        "stopping",
    ),
    _transport(
        "rounding scales rows up",
        "convergence",
        "kept = np.minimum(1, p / plan",
        "kept = np.maximum(1, p / plan",
        "rounding",
    ),
    _transport(
        "rounding costs a third", "convergence", "share * span * delta / 2", "share * span * delta / 3", "rounding"
    ),
    _transport(
        "gain of a half step without exp(-d)",
        "relaxation",
        "omega - 1) * t) + exp(-t))",
        "omega - 1) * t))",
        "safeguarded-relaxation",
    ),
    _transport(
        "relative entropy the other way round",
        "scaling",
        "rel_entr(other, plan)",
        "rel_entr(plan, other)",
        "entropic-programme",
    ),
    _transport("programme without 1/λ", "scaling", "x * sp.log(x) / _LAMBDA for", "x * sp.log(x) for", "scaling-form"),
    _transport(
        "one entropy below",
        "scaling",
        "value - epsilon * sum(entropies)",
        "value - epsilon * min(entropies)",
        "entropic-limits",
    ),
)
REGULARISED = (
    _transport(
        "upper end of the bias without ε",
        "bias",
        "entropic * epsilon * min(first",
        "entropic * min(first",
        "bias-bounds",
    ),
    _transport(
        "Hoeffding's constant 1/16",
        "bias",
        "min()) ** 2 / (8 * epsilon)",
        "min()) ** 2 / (16 * epsilon)",
        "bias-bounds",
    ),
    _transport(
        "slope in ε is an entropy",
        "bias",
        "np.log(middle.plan / np.outer(p, q))",
        "np.log(middle.plan)",
        "epsilon-path",
    ),
    _transport(
        "other tokens of the uniform law",
        "bias",
        "(size - 1) / (size - 1 + sp.exp(rate))",
        "(size - 1) / (size + sp.exp(rate))",
        "entropy-bias",
    ),
    _transport(
        "entropic gradient without ε",
        "functionals",
        "found.g + epsilon * np.log(q)",
        "found.g + np.log(q)",
        "functional-gradients",
    ),
    _transport(
        "sharp gradient, sign",
        "functionals",
        "found.g - epsilon * slope",
        "found.g + epsilon * slope",
        "functional-gradients",
    ),
    _transport(
        "sharp slope at the teacher, sign",
        "minimisers",
        '"sharp": (1 - 2 * p[0]) / root',
        '"sharp": (2 * p[0] - 1) / root',
        "opposite-gradients",
    ),
    _transport(
        "entropic value with one entropy",
        "functionals",
        "regularised.entropy(p) + regularised.entropy(q)",
        "regularised.entropy(p)",
        "three-functionals",
    ),
    _transport(
        "mass spread by columns",
        "minimisers",
        "kernel.sum(1, keepdims=True)",
        "kernel.sum(0, keepdims=True)",
        "functional-minimisers",
    ),
    _transport(
        "codebook with K for its transpose",
        "minimisers",
        "(kernel.T @ (p / (kernel @ q)))",
        "(kernel @ (p / (kernel @ q)))",
        "functional-minimisers",
    ),
    _transport(
        "debiased without ½",
        "regularised",
        "cross - (first + second) / 2",
        "cross - (first + second)",
        "debiased-positivity",
        "debiased-limits",
    ),
    _transport(
        "∂g/∂ε from the sum of cost and potentials",
        "regularised",
        "found.g - cost) / epsilon\n    matrix",
        "found.g + cost) / epsilon\n    matrix",
        "functional-gradients",
    ),
    _transport("energy distance without ½", "bias", "@ cost @ (p - q)) / 2", "@ cost @ (p - q))", "debiased-limits"),
    _transport(
        "threshold of the bipartite graph",
        "debiasing",
        "_threshold(sp.Rational(1, 2))",
        "_threshold(sp.Rational(1, 4))",
        "negative-type",
    ),
    _transport(
        "own value of equidistant tokens",
        "debiasing",
        "1 / (size * (1 + (size - 1) * x))",
        "1 / (size * (1 + size * x))",
        "debiased-positivity",
    ),
    _transport(
        "own force of a cloud, sign", "flow", "gradient - own * (student", "gradient + own * (student", "sinkhorn-flow"
    ),
    _transport(
        "slope of the expected loss, sign of the cost",
        "flow",
        "(p[1] - p[0]) + sp.log",
        "(p[0] - p[1]) + sp.log",
        "debiased-sample-bias",
    ),
    _transport("corner's discriminant", "sharp_debiased", "s**2 - 4 * theta", "s**2 - 2 * theta", "sharp-two-tokens"),
    _transport(
        "two squares, sign of δ",
        "stars",
        "(delta + (a * c - b * d) / 2) ** 2",
        "(delta - (a * c - b * d) / 2) ** 2",
        "sharp-debiased-star",
    ),
    oracle(
        "self-plans without their average",
        "transport/regularised",
        "new = f = (f + g) / 2",
        "new = f = f + g",
        "test_transport_theory_b.py",
    ),
    oracle(
        "enclosure without its radius",
        "transport/sharp_debiased",
        "return found * slack",
        "return found",
        "test_transport_theory_b.py",
    ),
)

TRANSPORT_THEORY = (*PROGRAMMES, *ITERATIONS, *REGULARISED)
