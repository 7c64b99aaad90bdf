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


_TREE_KL = "Better decisions under a token tree fixed beforehand, at next to no price in likelihood"
_TEXT = "Source code as text, small models (chapter 09)"
_TREE = f"{_TEXT}; the teacher's token tree as the metric"
_EMBEDDINGS = f"{_TEXT}; the distances of the teacher's own embeddings as the metric"
_DRIFT = f"{_TEXT}; the student of reverse KL or W1 ends with a higher cross-entropy of the text"

ADVICE = (
    Advice(
        "The teacher's whole distribution over the student's own vocabulary; the student starts from scratch or may be "
        "sure of wrong tokens",
        "forward KL",
        "through a softmax, and among f-divergences, only a forward-KL tail has a logit gradient that neither vanishes "
        "nor explodes at a confident mistake; the push of reverse KL, Jensen-Shannon, skew KL, total variation and W1 "
        "vanishes under gradient descent in free logits. In a shared network, under Adam with full batches, W1 and "
        "total variation did not repair, the others did so late; in a table W1 did. Small batches are not settled",
        _needs(
            PROVED="saturation.critical-exponent saturation.escape-forward-kl saturation.escape-bounded "
            "saturation.escape-asymptotics saturation.cold-start-bounded saturation.transport-stalls",
            SUPPORTED="students.cold-start-by-vocabulary saturation.shared-network saturation.shared-network-others "
            "saturation.where-the-advantage-ends",
        ),
    ),
    Advice(
        "After a warm start on hard labels; the student is wide enough to fit every training context",
        "any of forward KL, reverse KL, Jensen-Shannon, skew KL, skew reverse KL",
        "from one start, with full batches, all five ended as the teacher on the training contexts; W1 had not within "
        "the same steps, total variation is not settled there, and on other contexts nothing is",
        _needs(PROVED="modes.realisable", SUPPORTED="students.equivalence students.equivalence-capacity"),
    ),
    Advice(
        "A student too small for its teacher; likelihood under the teacher counts",
        "forward KL",
        "over any family of students, its minimiser is the one of highest expected log-likelihood under the teacher",
        _needs(PROVED="geometry.same-minimisers geometry.cross-entropy-minus-entropy"),
    ),
    Advice(
        "A student too small for its teacher; one mode is wanted, not coverage",
        "reverse KL, after a warm start",
        "where the modes lie far enough apart its best fit takes the major one and puts less mass between them than "
        "forward KL; training may stop at another mode, other losses may do as well, and it is slow to leave a "
        "confident mistake",
        _needs(
            PROVED="modes.gaussian-fit saturation.escape-asymptotics",
            PROVED_IF="modes.rkl-major-mode modes.void-mass",
            SUPPORTED="saturation.shared-network-others",
        ),
    ),
    Advice(
        "A student too small for its teacher; what it is used for costs a known distance d",
        "forward KL first; compare W1 by the cost of held-out decisions, not by W1",
        "no distance bounds all losses that are Lipschitz in d better than W1; but that bounds losses, not decisions: "
        "with synthetic teachers no gain in decisions was shown, on pixels there was one below the registered tenth, "
        "at a price in likelihood, and on a time series W1 alone made decisions dearer",
        _needs(
            PROVED="geometry.kantorovich-rubinstein geometry.downstream-bound",
            UNSUPPORTED="students.metric-gain modes.low-rank-wasserstein-gain students.real-metric-digits "
            "students.real-metric-series",
        ),
    ),
    Advice(
        "W1's metric is wanted in the loss, without its stall",
        "forward KL + λ W1, or forward KL + λ S_ε",
        "with each of the weights tried, forward KL with either beside it repaired confident mistakes in at most half "
        "as long again as alone; a λ too large for the teacher's margin loses the guarantee",
        _needs(
            PROVED="saturation.mixture",
            SUPPORTED="saturation.network-kl-term students.wasserstein-term-escape students.sinkhorn-term-escape",
        ),
    ),
    Advice(
        _TREE_KL,
        "forward KL + λ tree-KL",
        "it keeps what Wasserstein promises to a small student with a metric fixed beforehand, without the stall",
        _needs(
            PROVED="saturation.tree-kl-proper saturation.tree-kl-saturated saturation.tree-kl-labels",
            SUPPORTED="students.tree-kl",
        ),
    ),
    Advice(
        _TREE_KL,
        "forward KL; tree-KL did not keep what was registered",
        "at least one of its registered parts was refuted",
        _needs(UNSUPPORTED="students.tree-kl"),
    ),
    Advice(
        "Hard labels or drawn tokens only",
        "cross-entropy, that is forward KL; not W1, total variation, skew KL or reverse KL",
        "averaged over fresh tokens its loss is smallest at the teacher; labels drawn once and repeated teach their "
        "own frequencies. On single tokens W1 goes to the token nearest to all others, total variation to the "
        "likeliest, skew KL sharpens, reverse KL is infinite",
        _needs(
            PROVED="noise.energy-unbiased noise.one-hot-transport noise.skew-sharpens",
            PROVED_IF="parallel_lines.returns-truncated-teacher",
            SUPPORTED="students.hard-label-bias",
        ),
    ),
    Advice(
        "A teacher stored as its top k tokens",
        "any loss that stays finite (forward KL, Jensen-Shannon, skew KL, skew reverse KL); not reverse KL",
        "with exact zeros in the teacher reverse KL is infinite for every softmax student, and its training failed; a "
        "floor makes it finite, but its gradient grows as the floor falls. Which finite loss suffers least from the "
        "cut is not settled",
        _needs(
            PROVED="parallel_lines.softmax-has-full-support",
            PROVED_IF="parallel_lines.returns-truncated-teacher",
            SUPPORTED="students.truncation-reverse-kl",
        ),
    ),
    Advice(
        "A contaminated teacher, and students that cannot hold the outliers beside the rest",
        "total variation, after a warm start, if outliers are known to be dirt",
        "in total variation, its fit is at most twice the share of outliers farther off than the best student, "
        "wherever they lie, and forward KL has no such bound; but it stalls at confident mistakes, and a student that "
        "can hold the outliers copies them under either; the bound does not make it better every time, and it drops "
        "rare true tokens as well",
        _needs(PROVED="noise.outlier-toy saturation.escape-bounded", PROVED_IF="noise.outliers"),
    ),
    Advice(
        "Different vocabularies with one space of embeddings",
        "W1 with the distances between embeddings; not sorted probabilities (ULD) alone",
        "it learnt which token is which where the embeddings fit, and only there; sorted probabilities are content "
        "with every permutation of the teacher. Measured with one vocabulary renumbered, position by position: texts "
        "that are cut differently, and ULD beside cross-entropy, were not tried",
        _needs(PROVED="transport.uld-sorted transport.uld-wrong-order", SUPPORTED="students.cross-tokenizer"),
    ),
    Advice(
        "Transport over a whole vocabulary at each training step",
        "W1 on a token tree; W1 with k tokens kept and the others moved onto them; Sinkhorn with its interval",
        "each has a proved bound on its error, and still stalls; dropping the tail and renormalising can err by the "
        "lost mass times the diameter, and finitely many slices can miss a difference. If d obeys the triangle "
        "inequality, subtract min(p, q) from both first: W1 stays. The Sinkhorn divergence is slow on rare tokens",
        _needs(
            PROVED="transport.metric-sandwich transport.collapse-bound transport.mcshane-lower transport.rounding "
            "transport.drop-renormalise transport.sliced-blind saturation.transport-stalls",
            PROVED_IF="transport.reduction",
            SUPPORTED="students.tail students.tail-small-epsilon",
        ),
    ),
    Advice(
        "A published loss called Wasserstein, Sinkhorn or earth mover",
        "not SinKD, ULD or EMO in place of W1 between tokens",
        "SinKD moves the samples of a batch and sees no token metric, ULD compares sorted levels, EMO charges the "
        "independent coupling, which is the transport cost for one-hot labels only; and one symbol stands for "
        "different Sinkhorn losses",
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
        "depends on the measure: forward KL for likelihood, else the table of chapter 09",
        "W1 was to be lower than forward and reverse KL in cross-entropy of the text and in W1, and was higher in at "
        "least one of the four; the others may still favour it",
        _needs(PROVED="geometry.same-minimisers", UNSUPPORTED="students.wasserstein-beats-kl"),
    ),
    Advice(
        _EMBEDDINGS,
        "choose as without a metric",
        "W1 on them was nearly a multiple of total variation",
        _needs(PROVED="geometry.w1-against-tv", SUPPORTED="students.text-metric-is-variation"),
    ),
    Advice(
        _EMBEDDINGS,
        "as with any known metric (above)",
        "W1 on them was not nearly a multiple of total variation; whether the tokens' meaning does it, only the "
        "permuted embeddings beside it say",
        _needs(UNSUPPORTED="students.text-metric-is-variation"),
    ),
    Advice(
        _DRIFT,
        "the same with hard labels beside it",
        "half and half with hard labels, either loss ended with a lower cross-entropy of the text, and farther from "
        "the teacher in its own measure",
        _needs(SUPPORTED="students.text-hard-term"),
    ),
    Advice(
        _DRIFT,
        "hard labels only beside the loss that chapter 09 shows lower",
        "half and half with hard labels, at least one of the two ended higher",
        _needs(UNSUPPORTED="students.text-hard-term"),
    ),
    Advice(
        f"{_TEXT}; the head or the tail of the distribution matters more",
        "no choice by the shares of the gradient",
        "after hard labels these shares favour the head under forward KL only in a moderate majority of contexts; all "
        "the same, a small network mended more on the head under forward KL than under reverse KL at first",
        _needs(SUPPORTED="students.head-tail students.head-tail-fit students.text-head-tail"),
    ),
)
"""In the order of the table."""
