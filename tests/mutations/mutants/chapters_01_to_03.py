"""Formulas and controls of the claims of chapters 01 to 03."""

from tests.mutations.mutants.kinds import claim

GRADIENTS_AND_LINES = (
    claim(
        "reverse KL's slope as printed", "gradients/reverse_kl", "right=sp.log(q / p) + 1)", "right=sp.log(q / p) - 1)"
    ),
    claim(
        "an added constant that is none",
        "gradients/reverse_kl",
        "return _unbiased(lambda a, b: c)",
        "return _unbiased(lambda a, b: c * b)",
    ),
    claim(
        "total variation's forms without ½",
        "gradients/total_variation",
        "*_summand(sp.Rational(1, 2)),",
        "*_summand(sp.Rational(1, 3)),",
    ),
    claim(
        "weight of a token drawn for forward KL, sign",
        "gradients/forward_kl",
        "weights = [-1 / b for b in student.q]",
        "weights = [1 / b for b in student.q]",
    ),
    claim(
        "skew KL's weight",
        "gradients/skew_kl",
        "symbolic.identity(weight, -(1 - alpha) / _mixed",
        "symbolic.identity(weight, -alpha / _mixed",
    ),
    claim("bounded slopes with the factor 1", "gradients/chain_rule", "_bound_fails_by(2.0),", "_bound_fails_by(1.0),"),
    claim(
        "chain rule with the plain mean",
        "gradients/chain_rule",
        "return q_[0] * (g[0] - oracles.expectation(q_, g))",
        "return q_[0] * (g[0] - sum(g) / 3)",
    ),
    claim(
        "distance of the lines with an offset",
        "parallel_lines/lines",
        "return attempt_matching(0.0)",
        "return attempt_matching(0.1)",
    ),
    claim(
        "slope of the blurred KL",
        "parallel_lines/smoothed",
        'abs(slope["kl"] - theta / s**2)',
        'abs(slope["kl"] - theta / s)',
    ),
    claim(
        "a control that must fail is made to hold",
        "gradients/reverse_kl",
        "right=q / p + 1)",
        "right=sp.log(q / p) + 1)  #",
    ),
    claim(
        "transport's gradient, sign of the potential",
        "gradients/wasserstein",
        "        _attempt_gradient(1),",
        "        _attempt_gradient(-1),",
    ),
)
LINES = (
    claim(
        "floor put on the other token",
        "parallel_lines/truncation",
        "q * sp.log(q / (1 - e)) + (1 - q) * sp.log((1 - q) / e)",
        "q * sp.log(q / e) + (1 - q) * sp.log((1 - q) / (1 - e))",
        "parallel_lines.returns-truncated-teacher",
    ),
    claim(
        "far atoms' distance, sign of the mean",
        "parallel_lines/moving",
        "(far + q @ y - p @ x)",
        "(far - q @ y + p @ x)",
        "parallel_lines.returns-moving-atoms",
    ),
    claim(
        "noisy KL bound halved",
        "parallel_lines/moving",
        "/ (2 * s**2)",
        "/ (4 * s**2)",
        "parallel_lines.returns-hidden-states",
    ),
    claim(
        "overlap of coins without counting",
        "parallel_lines/sequences",
        "comb(steps, heads)\n        * min(",
        "1\n        * min(",
        "parallel_lines.returns-long-sequences",
    ),
    claim(
        "overlap's lower bound without ½",
        "parallel_lines/sequences",
        "b ** (2 * steps) / 2",
        "b ** (2 * steps)",
        "parallel_lines.returns-long-sequences",
    ),
)
SATURATION = (
    claim(
        "ratio form's entry without 1 - q_k",
        "saturation/exponent",
        "others - (1 - point.q[k]) * values[k])",
        "others - values[k])",
        "saturation.ratio-form",
    ),
    claim(
        "polygon's φ on its pieces",
        "saturation/exponent",
        "(2 * _n + 1) / (_NEXT",
        "(2 * _n - 1) / (_NEXT",
        "saturation.tail-of-f",
    ),
    claim(
        "Neyman classified with forward KL",
        "saturation/classification",
        '| {"fkl": 1,',
        '| {"fkl": 1, "neyman": 1,',
        "saturation.classification",
    ),
    claim(
        "rate of skew KL without its square",
        "saturation/rates",
        "(1 - tenth) ** 2 / (tenth",
        "(1 - tenth) / (tenth",
        "saturation.rates",
    ),
    claim(
        "escape time of total variation without Δ",
        "saturation/escape",
        "/ 2, gap + sinh(gap)",
        "/ 2, sinh(gap)",
        "saturation.escape-closed-forms",
    ),
    claim(
        "escape time of reverse KL, sign",
        "saturation/escape",
        "(up + down) / 2",
        "(up - down) / 2",
        "saturation.escape-closed-forms",
    ),
    claim(
        "asymptotic escape of Amari without α",
        "saturation/asymptotics",
        '"amari": a / (2',
        '"amari": 1 / (2',
        "saturation.escape-asymptotics",
    ),
    claim(
        "escape bound without the square",
        "saturation/bounds",
        "2 * L * (s * (1 - s)) ** 2",
        "2 * L * (s * (1 - s))",
        "saturation.escape-bounded",
    ),
    claim(
        "forward KL leaves twice as late",
        "saturation/bounds",
        "v / 2 - leaves",
        "v - leaves",
        "saturation.escape-forward-kl",
    ),
    claim(
        "descent needs twice the steps",
        "saturation/bounds",
        "/ (2 * rate * L)",
        "/ (rate * L)",
        "saturation.descent-steps",
    ),
    claim(
        "growth of the leader without 1 - M",
        "saturation/cold_start",
        "return M**2 * (1 - M)",
        "return M**2",
        "saturation.cold-start-bounded",
    ),
    claim(
        "natural time of reverse KL without 1 +",
        "saturation/natural",
        "np.log(1 + (z[k]",
        "np.log((z[k]",
        "saturation.natural-gradient",
    ),
    claim(
        "added loss hastens the escape",
        "saturation/repair",
        "p[y] - p[k] - weight / 2",
        "p[y] - p[k] + weight / 2",
        "saturation.mixture",
    ),
    claim(
        "debiased bound halved",
        "saturation/transport",
        "factor * 4 * width",
        "factor * 2 * width",
        "saturation.transport-stalls",
    ),
    claim(
        "control: the whole of an attained constant",
        "saturation/bounds",
        "return _attempt_mass(0.5)",
        "return _attempt_mass(1.0)",
        "saturation.escape-bounded",
    ),
)
FIRST_CHAPTERS = (*GRADIENTS_AND_LINES, *LINES, *SATURATION)
