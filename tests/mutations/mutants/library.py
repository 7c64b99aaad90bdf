"""Formulas of the library: divergences, transport, the simplex, dynamics, ball arithmetic."""

from tests.mutations.mutants.kinds import Mutant, definition, derivation, dynamics, fast, interval, simplex, transport

DEFINITIONS = (
    definition("forward KL with p and q swapped", "term=p * sp.log(p / q),", "term=q * sp.log(q / p),"),
    definition("reverse KL's ratio inverted", "term=q * sp.log(q / p),", "term=q * sp.log(p / q),"),
    definition(
        "JSD's weights swapped",
        "term=beta * p * sp.log(p / m) + (1 - beta)",
        "term=(1 - beta) * p * sp.log(p / m) + beta",
    ),
    definition("JSD's mixture swapped", "mixture=beta * p + (1 - beta) * q,", "mixture=beta * q + (1 - beta) * p,"),
    definition("total variation without ½", "term=sp.Abs(p - q) / 2,", "term=sp.Abs(p - q),"),
    definition(
        "skew KL's mixture swapped", "mixture=alpha * p + (1 - alpha) * q,", "mixture=alpha * q + (1 - alpha) * p + 0,"
    ),
    definition(
        "skew reverse KL's mixture swapped",
        "mixture=alpha * q + (1 - alpha) * p,",
        "mixture=alpha * p + (1 - alpha) * q + 0,",
    ),
    definition("χ² with q in the numerator", "term=p**2 / q - p,", "term=q**2 / p - p + 0,"),
    definition("Neyman's χ² with a factor ½", "term=q**2 / p - p,", "term=q**2 / (2 * p) - p,"),
    definition("Hellinger with a factor 2", "term=p - sp.sqrt(p * q),", "term=2 * (p - sp.sqrt(p * q)),"),
    definition(
        "Amari with α and 1 - α swapped",
        "term=(p - p**alpha * q ** (1 - alpha)) /",
        "term=(p - p ** (1 - alpha) * q**alpha) /",
    ),
    definition("Amari without its factor", "/ (alpha * (1 - alpha)),", "/ alpha,"),
    definition("Rényi's sign", "outer=sp.log(S) / (alpha - 1),", "outer=sp.log(S) / (1 - alpha),"),
    definition(
        "χ²'s exponent in the fast gradient",
        "power_gradient(pair, kappa=2, scale=1.0)",
        "power_gradient(pair, kappa=2, scale=2.0)",
    ),
    definition(
        "Hellinger's scale in the fast gradient",
        "power_gradient(pair, kappa=0.5, scale=0.5)",
        "power_gradient(pair, kappa=0.5, scale=1.0)",
    ),
    definition("Amari's scale in the fast gradient", "kappa=alpha, scale=1 / alpha)", "kappa=alpha, scale=1.0)"),
)
DERIVATIONS = (
    derivation(
        "chain rule adds the mean",
        "return [own.subs(pair) - pair[q] * shared",
        "return [own.subs(pair) + pair[q] * shared",
    ),
    derivation(
        "mixture's inner derivative dropped",
        "inner += sp.diff(record.term, m) * sp.diff(record.mixture, q)",
        "inner += sp.diff(record.term, m)",
    ),
    derivation(
        "weight of a drawn token divided by the wrong law",
        "TokenWeights(tidy(g / p, record.mixture), tidy(g / q",
        "TokenWeights(tidy(g / q, record.mixture), tidy(g / q",
    ),
    derivation("curvature without p", "sp.simplify((p * sp.diff(", "sp.simplify((sp.diff("),
    derivation(
        "simplex gradient minus the sum of the slopes", "value - sum(values) / sp.Integer(size)", "value - sum(values)"
    ),
)
FAST = (
    fast(
        "forward KL's linear term",
        "pair.above, pair.below) + pair.difference)",
        "pair.above, pair.below) - pair.difference)",
        "summands",
    ),
    fast(
        "forward KL's linear term, ordinary rows",
        "(pair.excess(-1.0) + pair.log_ratio).mul_(pair.p)",
        "(pair.log_ratio - pair.excess(-1.0)).mul_(pair.p)",
        "summands",
    ),
    fast(
        "forward KL's gradient, sign",
        "return closed(scale * pair.difference, pair)",
        "return closed(-scale * pair.difference, pair)",
    ),
    fast("reverse KL's slope, sign", "    return -pair.log_ratio\n", "    return pair.log_ratio\n", "summands"),
    fast(
        "JSD's slope, weight",
        "return (beta - 1) * pair.log_over_q(1 - beta)",
        "return -beta * pair.log_over_q(1 - beta)",
        "summands",
    ),
    fast(
        "total variation's slope without ½",
        "return -0.5 * torch.sign(pair.log_ratio)",
        "return -torch.sign(pair.log_ratio)",
        "summands",
    ),
    fast("skew KL's slope, weight", "return (alpha - 1) * torch.expm1(", "return -alpha * torch.expm1(", "summands"),
    fast("skew KL's slope, ordinary rows", "(over / (over + 1)).mul_(1 - alpha)", "over.mul(1 - alpha)", "summands"),
    fast(
        "skew reverse KL's slope without its second term",
        "return -over_q - alpha * torch.expm1(-over_q)",
        "return -over_q",
        "summands",
    ),
    fast(
        "Neyman's slope, factor",
        "return 2 * torch.expm1(-pair.log_ratio)",
        "return torch.expm1(-pair.log_ratio)",
        "summands",
    ),
    fast("Neyman's gradient, exponent", "kappa=-1, scale=-2.0", "kappa=-1, scale=-1.0", "summands"),
    fast(
        "χ²'s value, exponent",
        "(pair.log_q + 2 * pair.above, math.inf)",
        "(pair.log_q + pair.above, math.inf)",
        "summands",
    ),
    fast("power gradient, ordinary rows, sign", "pair.excess(kappa)).mul_(-scale)", "pair.excess(kappa)).mul_(scale)"),
    fast(
        "the embeddings' gradient is the last chunk's", "total.addmm_(left, right)", "total.copy_(left @ right)", "head"
    ),
    fast(
        "centring by the plain mean",
        "closed(flow - pair.q * flow.sum(-1, keepdim=True), pair)",
        "closed(flow - flow.mean(-1, keepdim=True), pair)",
    ),
    fast(
        "largest token not closed",
        "    rest = -gradient.scatter_(-1, top, 0.0)",
        "    rest = gradient.scatter_(-1, top, 0.0)",
    ),
    fast("limit where p = 0, sign", "torch.sign(order) * math.inf)", "-torch.sign(order) * math.inf)"),
    fast(
        "Rényi's weights",
        "log_s = alpha * pair.log_p + (1 - alpha) * pair.log_q",
        "log_s = alpha * pair.log_q + (1 - alpha) * pair.log_p",
        "renyi",
    ),
    fast(
        "Rényi's slope, exponent",
        "torch.expm1(alpha * pair.log_ratio - log_total)",
        "torch.expm1(pair.log_ratio - log_total)",
        "renyi",
    ),
    fast("AKL's weights exchanged", "return forward, 1 - forward", "return 1 - forward, forward", "akl"),
    fast("AKL's head includes one token too few", "count = (before <= mu)", "count = (before < mu)", "akl"),
    fast("temperature's power in a sum", "+ scale / part.temperature * slope", "+ scale * slope", "combination"),
)
TRANSPORTS = (
    transport("potential on a line, sign", "closed_forms", "g = -torch.cat([torch", "g = torch.cat([torch"),
    transport("line without absolute value", "closed_forms", "surplus.abs() @ gaps", "surplus @ gaps"),
    transport("0-1 cost without ½", "closed_forms", "0.5 * difference.abs().sum(-1)", "difference.abs().sum(-1)"),
    transport(
        "tree: surplus below the wrong edge",
        "closed_forms",
        "tree.ancestor_sums(lengths * torch.sign(surplus))",
        "tree.ancestor_sums(torch.sign(surplus))",
    ),
    transport(
        "teacher's potential handed to the student",
        "exact",
        "return _ordered(mass * primal, lower, mass * slack, f, -f)",
        "return _ordered(mass * primal, lower, mass * slack, f, f)",
    ),
    transport(
        "mass of the reduced problem forgotten", "exact", "_ordered(mass * primal, lower", "_ordered(primal, lower"
    ),
    transport(
        "rows and columns exchanged",
        "exact",
        "_network_simplex(a, b, to_demand[supply])\n    f = (to_demand - v).min(1)\n    g",
        "_network_simplex(b, a, to_demand[supply].T)\n    f = (to_demand - v).min(1)\n    g",
    ),
)
SIMPLEX = (
    simplex("Fisher-Rao distance on the unit sphere", "return 4 * np.arcsin(", "return 2 * np.arcsin("),
    simplex(
        "softmax Jacobian's sign", "(np.eye(q.shape[-1]) - q[..., None, :])", "(np.eye(q.shape[-1]) + q[..., None, :])"
    ),
    simplex(
        "Fisher-Rao geodesic runs backwards",
        "angle) * np.sqrt(p) + t * _sinc(t * angle) * np.sqrt(q)",
        "angle) * np.sqrt(q) + t * _sinc(t * angle) * np.sqrt(p)",
    ),
    simplex(
        "exponential map at twice the speed",
        "_sinc(angle) * v / p / 2)",
        "_sinc(angle) * v / p)",
        "geometry.fisher-rao",
    ),
    simplex("exit time halved", "2 / speed * np.arctan(", "1 / speed * np.arctan(", "geometry.incomplete"),
    simplex(
        "exit by the token that grows fastest",
        "steepest = (-v / p).max(",
        "steepest = (v / p).max(",
        "geometry.incomplete",
    ),
    simplex(
        "logarithm map at half the speed", "2 * towards / _sinc(angle)", "towards / _sinc(angle)", "geometry.fisher-rao"
    ),
    simplex("e-geodesic runs backwards", "(1 - s) * np.log(p) + s * np.log(q)", "s * np.log(p) + (1 - s) * np.log(q)"),
    simplex("natural gradient multiplied by q", "given / q", "given * q", "geometry.natural-gradient"),
    simplex(
        "natural gradient centred by the plain mean",
        "return g - (q * g).sum(axis=-1, keepdims=True)",
        "return g - g.mean(axis=-1, keepdims=True)",
    ),
    simplex(
        "Fisher projection is the Euclidean one",
        "return v - p * v.sum(axis=-1, keepdims=True)",
        "return v - v.mean(axis=-1, keepdims=True)",
    ),
)
DYNAMICS = (
    dynamics("an event's margin, sign", "return (1 if self.rises else -1) * (", "return (-1 if self.rises else 1) * ("),
    dynamics(
        "an event's level mirrored", "np.log(self.level)", "np.log(1 - self.level)", "saturation.natural-gradient"
    ),
    dynamics(
        "natural flow by the root of q",
        "return -gradient / log_q.exp()",
        "return -gradient / log_q.exp().sqrt()",
        "saturation.natural-gradient",
    ),
    dynamics(
        "a flow's error per token grows with their number",
        "tolerance / np.sqrt(start.size)",
        "tolerance * np.sqrt(start.size)",
        "saturation.cold-start-exact",
    ),
    dynamics(
        "Adam without the mean's bias correction",
        "value=-self.learning_rate / (1 - self.first**self.count)",
        "value=-self.learning_rate",
    ),
    dynamics("Adam's epsilon under the root", ".sqrt_().add_(self.epsilon)", ".add_(self.epsilon).sqrt_()"),
    dynamics(
        "descent counts one step too many",
        "return Descent(count, z.numpy(), True)",
        "return Descent(count + 1, z.numpy(), True)",
        "saturation.descent-steps",
    ),
    dynamics(
        "the mistake is the least probable token",
        "int(student_logits.argmax())",
        "int(student_logits.argmin())",
        "saturation.escape-bounded",
    ),
)
INTERVALS = (
    interval("strict inequality proved as a weak one", "value < 0 if strict else value <= 0", "value <= 0"),
    interval("equality taken for a failure", "if strict else (here > 0)", "if strict else (here >= 0)"),
    interval("mean value form along the diagonal", "1 if other == name else 0", "1"),
    interval(
        "only one half of a box is searched",
        "(*sides[:cut], (middle, high), *sides[cut + 1 :])",
        "(*sides[:cut], (low, middle), *sides[cut + 1 :])",
    ),
    interval("an undecided box counts as proved", "return None, used, middle", "return True, used, middle"),
    interval(
        "a number beyond one end lies between them",
        "inside = bool(found >= ball(bottom, bottom)) and bool",
        "inside = bool(found >= ball(bottom, bottom)) or bool",
    ),
    Mutant(
        "failure outside the condition is no longer hoped for",
        "kdtheory/ledger/evidence.py",
        "holds is (role in _ROLES_THAT_ASSERT)",
        'holds is (role in (*_ROLES_THAT_ASSERT, "outside condition"))',
        ("geometry.mode-collapse",),
        ("tests/ledger",),
    ),
)
LIBRARY = (*DEFINITIONS, *DERIVATIONS, *FAST, *TRANSPORTS, *SIMPLEX, *DYNAMICS, *INTERVALS)
