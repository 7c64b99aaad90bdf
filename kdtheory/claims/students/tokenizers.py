"""H14: what carries the identity of a token between two vocabularies."""

from __future__ import annotations

from kdtheory.claims.students import common
from kdtheory.ledger import Evidence, Verdict, claim, experiments

_DOMAIN = (
    "linear softmax teachers over 32 tokens, students of 64 hidden units whose tokens are the same ones in another "
    "order, 40 contexts, full-batch Adam, rate per loss; transport with Euclidean distances of embeddings"
)
_ABOVE = (
    "share of contexts whose most likely tokens agree after undoing the relabelling, minus that share with the "
    "student's tokens shuffled over contexts; mean over seeds"
)
RULE = experiments.Rule(
    metric=f"{_ABOVE}; for sorted transport also its final value over its first",
    supported_if="sorted transport (ULD): at most .05 above chance although at most .05 of its value is left; W1: at "
    "least .5 above chance with equal embeddings and with noisy ones; W1 with scrambled embeddings: at most .05",
    unsupported_if="sorted transport more than .05 above chance, or more than .2 of its value left; W1 below .05 with "
    "equal or noisy embeddings, or above .05 with scrambled ones",
    decide=common.every_outcome,
)
BESIDE = experiments.Rule(
    metric=_ABOVE,
    supported_if="sorted transport at most .05 above chance and W1 on the token tree at least .5 above it, for tables "
    "of logits and for a student with tokens of its own; the same for W1 on the tree of noisy embeddings; forward KL "
    "by number at most .05",
    unsupported_if="sorted transport or forward KL by number more than .05 above chance, W1 on a tree below .05",
    decide=common.every_outcome,
)
_LEAKS = {"ULD: agreement above chance": "refuted", "W1, aligned: agreement above chance": "supported"}


@claim(
    "students.cross-tokenizer",
    statement=r"\text{Between two vocabularies, transport with an embedding cost transfers the identity of tokens;"
    r" sorted probabilities do not, though their loss goes to 0}",
    source="kdtheory, H14",
    expected=Verdict.SUPPORTED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("transport.uld-sorted",),
)
def cross_tokenizer() -> Evidence:
    """With scrambled embeddings transport falls to chance: it is the cost that knows, not the loss."""
    measure = lambda: common.verdict("tokenizers", "H14", part="main")  # noqa: E731
    return experiments.judge(RULE, measure, says="The cost carries the tokens' identity; sorting loses it.")


@cross_tokenizer.control
def _() -> Evidence:
    """Sorted transport above chance must not support it."""
    return experiments.judge(RULE, lambda: (_LEAKS, 10, True), says="Sorting loses identity although it does not.")


@claim(
    "students.cross-tokenizer-variants",
    statement=r"\text{The same holds for tables of logits, for a student with more tokens, and on a tree of the"
    r" embeddings; forward KL between tokens of one number stays at chance}",
    source="kdtheory, H14, variants",
    expected=Verdict.UNDECIDED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("students.cross-tokenizer",),
)
def variants() -> Evidence:
    """Expected before the runs: SUPPORTED. Undecided is forward KL by number: a random order keeps some tokens."""
    measure = lambda: common.verdict("tokenizers", "H14", part="beside")  # noqa: E731
    return experiments.judge(BESIDE, measure, says="Variants of the probe agree with it.")


@variants.control
def _() -> Evidence:
    """As above."""
    return experiments.judge(BESIDE, lambda: (_LEAKS, 10, True), says="Variants agree although one does not.")
