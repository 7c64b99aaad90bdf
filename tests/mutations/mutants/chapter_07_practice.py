"""Formulas of the claims of sections 7.6 to 7.8: approximations and published losses."""

from tests.mutations.mutants.kinds import Mutant, claim, oracle


def _transport(what: str, file: str, old: str, new: str, *slugs: str) -> Mutant:
    return claim(what, f"transport/{file}", old, new, *(f"transport.{slug}" for slug in slugs))


APPROXIMATIONS = (
    _transport(
        "moves priced with their sign",
        "truncation",
        "float(np.abs(delta) @ cost[np",
        "float(delta @ cost[np",
        "collapse-bound",
    ),
    _transport(
        "largest extension leaves the kept tokens",
        "truncation",
        "(f[:, None] + to_kept).min(0)",
        "(f[:, None] + to_kept).max(0)",
        "mcshane-lower",
    ),
    _transport(
        "moved tokens take no potential",
        "truncation",
        "slope = f[goal] if pulled",
        "slope = 0 * f if pulled",
        "collapse-gradient",
    ),
    _transport(
        "error of dropping, cluster's mass",
        "dropping",
        "Fraction(7, 16) * width",
        "Fraction(7, 8) * width",
        "drop-renormalise",
    ),
    _transport(
        "an ultrametric's spread on n points",
        "tree",
        "amount = size - 1 - spread",
        "amount = size - spread",
        "ultrametric-line",
    ),
    _transport(
        "quotients inverted",
        "tree",
        "(above[rest] / below[rest]).max())",
        "(below[rest] / above[rest]).max())",
        "metric-sandwich",
    ),
    _transport(
        "clusters meet at their least distance",
        "tree",
        "sum(heights, Fraction(0)) / len(heights)",
        "min(heights)",
        "linkage",
    ),
    _transport(
        "mean cosine on the sphere",
        "sliced",
        "sp.gamma(half + sp.Rational(1, 2))",
        "sp.gamma(half + 1)",
        "sliced-sphere",
    ),
    _transport("ghost along its directions", "sliced", "[(-b, a) for a, b in", "[(a, b) for a, b in", "sliced-blind"),
    _transport(
        "stretched mean without the root",
        "sliced",
        "mean * np.sqrt(count) / sigma",
        "mean * count / sigma",
        "sliced-lower",
    ),
)
PUBLISHED = (
    _transport(
        "SinKD's operations, kernel", "batch_operations", "b**2 * (3 * d + 4)", "b**2 * (3 * d + 3)", "sinkd-batch"
    ),
    _transport(
        "SinKD's loops normalise rows first",
        "batch_operations",
        "columns = [_sum([plan[i][j] for i in size]) for j",
        "columns = [_sum([plan[j][i] for i in size]) for j",
        "sinkd-batch",
    ),
    _transport(
        "SinKD of two disjoint rows",
        "batchwise",
        "symbolic.identity(value, 4 * k / (1 + k)",
        "symbolic.identity(value, 2 * k / (1 + k)",
        "sinkd-zero",
    ),
    _transport(
        "bound at the copy, exponent",
        "batchwise",
        "np.exp(-2 * apart.max() / epsilon)",
        "np.exp(2 * apart.max() / epsilon)",
        "sinkd-copy",
    ),
    _transport(
        "ULD by the student's own order",
        "sorted",
        "zip(sorted(p), sorted(q), strict=True)",
        "zip(sorted(p), q, strict=True)",
        "uld-sorted",
    ),
    _transport(
        "fan's outer angle",
        "class_cost",
        "sp.exp(-4 * kappa * x * (1 - x))",
        "sp.exp(-kappa * x * (1 - x))",
        "wkd-cost",
    ),
    _transport("correlation not squared", "class_cost", "dot[0] ** 2 / (dot[1]", "dot[0] / (dot[1]", "wkd-order"),
    _transport(
        "target's minimiser q ∝ p",
        "class_cost",
        "[a * r for a, r in zip(p, labels, strict=True)]",
        "[a for a, r in zip(p, labels, strict=True)]",
        "wkd-target",
    ),
    _transport(
        "separation, last term", "independent", "block[:, :1] + block[0, 0]", "block[:, :1] - block[0, 0]", "emo-bound"
    ),
    _transport(
        "one soft marginal of two",
        "assisted",
        "-cost / (epsilon + 2 * rho))",
        "-cost / (epsilon + rho))",
        "assisted-one-point",
    ),
    _transport(
        "assistant's threshold", "assisted", "_assistant_fails_by(0.5)", "_assistant_fails_by(0.6)", "assisted-metric"
    ),
    oracle(
        "far divergence without ½",
        "transport/assisted",
        "strict=True)), F(0)) / 2\n\n\ndef _divergence",
        "strict=True)), F(0))\n\n\ndef _divergence",
        "test_transport_published.py",
    ),
)

TRANSPORT_PRACTICE = (*APPROXIMATIONS, *PUBLISHED)
