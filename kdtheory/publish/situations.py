"""What to train on, situation by situation: each piece of advice with the claims, and the verdicts, that it rests on.

Several records of one situation are alternatives that cannot hold together. A reason says no more than its claims do,
and no number: whoever wants one asks `kdtheory show ID`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdtheory.ledger import Verdict


@dataclass(frozen=True)
class Advice:
    """A loss for a situation.

    Attributes
    ----------
    situation, loss, why : str
        For whom, what, and the reason in one sentence.
    rests_on : dict of str to tuple of Verdict
        Claim id -> verdicts under which the advice stands.
    """

    situation: str
    loss: str
    why: str
    rests_on: dict[str, tuple[Verdict, ...]]


def _needs(**ids: str) -> dict[str, tuple[Verdict, ...]]:
    """`_needs(PROVED="a b", SUPPORTED="c")`: claim -> verdicts that serve. What holds without condition serves too."""
    serve = {verdict: (verdict,) for verdict in Verdict} | {Verdict.PROVED_IF: (Verdict.PROVED_IF, Verdict.PROVED)}
    return {id: serve[Verdict[name]] for name, listed in ids.items() for id in listed.split()}


_TREE = "Real text; the teacher's token tree as the metric"
_EMBEDDINGS = "Real text; the distances of the teacher's own embeddings as the metric"
_DRIFT = "Real text; the student of reverse KL or W1 drifts from it"

ADVICE = (
    Advice(
        "The teacher's whole distribution over the student's own vocabulary; the student starts from scratch or may be "
        "sure of wrong tokens",
        "forward KL",
        "through a softmax, and among f-divergences, only a forward-KL tail has a logit gradient that neither vanishes "
        "nor explodes at a confident mistake; bounded slopes, those of W1 included, stall under gradient descent in "
        "free logits; W1 stalled under Adam too in a shared network, not in a table",
        _needs(
            PROVED="saturation.critical-exponent saturation.escape-forward-kl saturation.escape-bounded "
            "saturation.cold-start-bounded saturation.transport-stalls",
            SUPPORTED="saturation.shared-network saturation.shared-network-others saturation.where-the-advantage-ends",
        ),
    ),
    Advice(
        "The same after a warm start on hard labels; the student can be its teacher",
        "any of forward KL, reverse KL, Jensen-Shannon, skew KL, skew reverse KL",
        "from one start all five ended as the teacher in the contexts trained on; for total variation and W1 this is "
        "not supported within the same steps",
        _needs(
            PROVED="modes.realisable",
            SUPPORTED="students.equivalence students.equivalence-capacity",
            UNSUPPORTED="students.equivalence-transport",
        ),
    ),
    Advice(
        "A student too small for its teacher; likelihood counts",
        "forward KL",
        "over any family of students, its minimiser is the one of highest expected log-likelihood under the teacher, "
        "and a small student of reverse KL ends elsewhere",
        _needs(
            PROVED="geometry.same-minimisers geometry.cross-entropy-minus-entropy",
            SUPPORTED="students.equivalence-capacity",
        ),
    ),
    Advice(
        "A student too small for its teacher; one mode is wanted, not coverage",
        "reverse KL, after a warm start",
        "where the modes lie far enough apart it takes the major one and puts less mass between them than forward KL; "
        "alone it is slow to leave a confident mistake",
        _needs(
            PROVED="modes.gaussian-fit saturation.escape-asymptotics",
            PROVED_IF="modes.rkl-major-mode modes.void-mass",
            SUPPORTED="saturation.shared-network-others",
        ),
    ),
    Advice(
        "A student too small for its teacher; what it is used for costs a known distance d",
        "forward KL to train, W1 under d to judge",
        "no distance bounds all losses that are Lipschitz in d better than W1, yet training on it lowered the cost of "
        "decisions by less than the registered tenth in each experiment named here",
        _needs(
            PROVED="geometry.kantorovich-rubinstein geometry.downstream-bound",
            SUPPORTED="students.metric-gain-elsewhere",
            UNSUPPORTED="students.metric-gain modes.low-rank-wasserstein-gain students.real-metric-digits "
            "students.real-metric-series",
        ),
    ),
    Advice(
        "W1's metric is wanted in the loss, without its stall",
        "forward KL + λ W1, or forward KL + λ S_ε",
        "beside either, forward KL repairs confident mistakes in at most half as long again as alone; the natural "
        "gradient of W1 left them in the experiment named here, not in that of H16, and fixed steps do not settle",
        _needs(
            PROVED="saturation.mixture geometry.kink",
            SUPPORTED="saturation.network-kl-term students.wasserstein-term-escape students.sinkhorn-term-escape "
            "students.natural-wasserstein-escape",
        ),
    ),
    Advice(
        "W1's gain in decisions is wanted at next to no price in likelihood",
        "forward KL + λ tree-KL",
        "it keeps what Wasserstein promises to a small student with a metric fixed beforehand, without the stall",
        _needs(
            PROVED="saturation.tree-kl-proper saturation.tree-kl-saturated saturation.tree-kl-labels",
            SUPPORTED="students.tree-kl",
        ),
    ),
    Advice(
        "Hard labels or drawn tokens only",
        "cross-entropy, that is forward KL; never W1 or skew KL",
        "its expected minimiser is the teacher for any number of fresh tokens; W1 on single ones goes to medoids, and "
        "skew KL sharpens",
        _needs(
            PROVED="noise.energy-unbiased noise.one-hot-transport noise.skew-sharpens",
            SUPPORTED="students.hard-label-bias students.whole-teacher-no-bias",
        ),
    ),
    Advice(
        "A teacher stored as its top k tokens",
        "forward KL; never reverse KL",
        "to a teacher with zeros reverse KL is infinite for every softmax student, and its training failed; forward KL "
        "is finite. A cut to a tenth of the tokens was not harmless for every loss",
        _needs(
            PROVED="parallel_lines.softmax-has-full-support",
            PROVED_IF="parallel_lines.returns-truncated-teacher",
            SUPPORTED="students.truncation-reverse-kl",
            UNSUPPORTED="students.truncation-student",
        ),
    ),
    Advice(
        "A contaminated teacher, and students that cannot hold the outliers beside the rest",
        "total variation, after a warm start",
        "in total variation, its fit is at most twice the share of outliers farther off than the best student, "
        "wherever they lie, and forward KL has no such bound; but it stalls at confident mistakes, and a student that "
        "can hold the outliers copies them under either",
        _needs(PROVED="noise.outlier-toy saturation.escape-bounded", PROVED_IF="noise.outliers"),
    ),
    Advice(
        "Different vocabularies with one space of embeddings",
        "W1 with the distances between embeddings; never sorted probabilities (ULD)",
        "it learnt which token is which where the embeddings fit, and only there; sorted probabilities are content "
        "with every permutation of the teacher",
        _needs(PROVED="transport.uld-sorted transport.uld-wrong-order", SUPPORTED="students.cross-tokenizer"),
    ),
    Advice(
        "Transport over a whole vocabulary at each training step",
        "W1 on a token tree; W1 with k tokens kept and the others moved onto them; Sinkhorn with its interval",
        "each has a proved bound on its error, and still stalls; dropping the tail and renormalising can err by the "
        "lost mass times the diameter, and finitely many slices can miss a difference. For a metric, cancel the common "
        "mass first",
        _needs(
            PROVED="transport.metric-sandwich transport.collapse-bound transport.mcshane-lower transport.rounding "
            "transport.drop-renormalise transport.sliced-blind saturation.transport-stalls",
            PROVED_IF="transport.reduction",
        ),
    ),
    Advice(
        "A published loss called Wasserstein, Sinkhorn or earth mover",
        "not SinKD, ULD or EMO in place of W1 between tokens",
        "SinKD moves the samples of a batch and sees no token metric, ULD compares sorted levels, EMO charges the "
        "independent coupling; and one symbol stands for different Sinkhorn losses",
        _needs(
            PROVED="transport.sinkd-permutation transport.sinkd-zero transport.uld-sorted transport.emo-bound",
            CORRECTED="transport.three-functionals",
        ),
    ),
    Advice(
        _TREE,
        "W1 on the tree",
        "its student beat those of forward and reverse KL, in cross-entropy and in W1",
        _needs(SUPPORTED="students.wasserstein-beats-kl"),
    ),
    Advice(
        _TREE,
        "forward KL",
        "the student of W1 was worse than that of forward or of reverse KL, in cross-entropy or in W1 itself",
        _needs(PROVED="geometry.same-minimisers", UNSUPPORTED="students.wasserstein-beats-kl"),
    ),
    Advice(
        _EMBEDDINGS,
        "no transport: total variation says nearly the same",
        "W1 on them was nearly a multiple of total variation",
        _needs(PROVED="geometry.w1-against-tv", SUPPORTED="students.text-metric-is-variation"),
    ),
    Advice(
        _EMBEDDINGS,
        "as with any known metric (above)",
        "W1 on them was not nearly a multiple of total variation: they do tell tokens apart",
        _needs(UNSUPPORTED="students.text-metric-is-variation"),
    ),
    Advice(
        _DRIFT,
        "the same with hard labels beside it",
        "half and half with hard labels, either loss ended with a lower cross-entropy of the text",
        _needs(SUPPORTED="students.text-hard-term"),
    ),
    Advice(
        _DRIFT,
        "no hard labels beside it",
        "half and half with hard labels, one of the two ended with a higher cross-entropy of the text",
        _needs(UNSUPPORTED="students.text-hard-term"),
    ),
    Advice(
        "Real text; the head or the tail of the distribution matters more",
        "neither forward nor reverse KL on that account",
        "after hard labels, and on text throughout training, forward KL puts more of its gradient on the head than "
        "reverse KL only in a moderate majority of contexts",
        _needs(SUPPORTED="students.head-tail students.text-head-tail"),
    ),
)
"""In the order of the table."""
