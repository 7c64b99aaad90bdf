"""The rules that turn evidence into a verdict, each from both sides."""

import pytest

from kdtheory.ledger import Evidence, Verdict, decide
from kdtheory.ledger.verdict import NOT_INSTALLED, SEEDS_FOR_A_VERDICT
from kdtheory.students import statistics


def found(kind, role="supports", ok=True, scope=None, **data):
    default = {"symbolic": "scalar identity", "exact": "instance", "interval": "instance"}
    says = NOT_INSTALLED if data.get("installed") is False else "x"
    return Evidence(kind, role, ok, says, default.get(kind, "") if scope is None else scope, data)


POINT = {"p": "1/2"}
PROOF = found("proof")
ATTEMPT = found("numeric", "attempted refutation", oracle="mpmath")
IDENTITY = found("symbolic")
WRITTEN = found("exact", "refutes as written", counterexample=POINT)
INSIDE = found("exact", "inside condition")
OUTSIDE = found("exact", "outside condition", counterexample=POINT)

CASES = {
    "nothing": ([], {}, Verdict.OPEN),
    "identity proves an identity": ([IDENTITY], {"scope": "scalar identity"}, Verdict.PROVED),
    "identity does not prove all V": ([IDENTITY], {}, Verdict.OPEN),
    "V = 3 proves V = 3": ([found("symbolic", scope="V = 3")], {"scope": "V = 3"}, Verdict.PROVED),
    "V = 3 does not prove V = 4": ([found("symbolic", scope="V = 3")], {"scope": "V = 4"}, Verdict.OPEN),
    "undecided identity": ([found("symbolic", ok=None)], {"scope": "scalar identity"}, Verdict.OPEN),
    "false identity": (
        [found("symbolic", ok=False, counterexample=POINT)],
        {"scope": "scalar identity"},
        Verdict.REFUTED,
    ),
    "one identity of two false": (
        [IDENTITY, found("symbolic", ok=False, counterexample=POINT)],
        {"scope": "scalar identity"},
        Verdict.REFUTED,
    ),
    "exact proves an instance": ([found("exact")], {"scope": "instance"}, Verdict.PROVED),
    "exact does not prove all V": ([found("exact")], {}, Verdict.OPEN),
    "interval proves its box": ([found("interval", scope="box A")], {"scope": "box A"}, Verdict.PROVED),
    "interval does not prove another box": ([found("interval", scope="box A")], {"scope": "box B"}, Verdict.OPEN),
    "formal": ([found("formal")], {}, Verdict.PROVED),
    "formal that does not compile": ([found("formal", ok=False)], {}, Verdict.OPEN),
    "proof with an attempt": ([PROOF, ATTEMPT], {}, Verdict.PROVED),
    "proof without an attempt": ([PROOF], {}, Verdict.OPEN),
    "proof whose text changed": ([found("proof", ok=False), ATTEMPT], {}, Verdict.OPEN),
    "proof with a refutation that succeeds": (
        [PROOF, found("numeric", "attempted refutation", False, oracle="mpmath", counterexample=POINT)],
        {},
        Verdict.REFUTED,
    ),
    "proof not installed": ([found("proof", ok=None, installed=False), ATTEMPT], {}, Verdict.OPEN),
    "numbers never prove": ([found("numeric", oracle="mpmath")] * 3, {"scope": "instance"}, Verdict.OPEN),
    "numbers refute": ([found("numeric", ok=False, oracle="mpmath", counterexample=POINT)], {}, Verdict.REFUTED),
    "numbers without an oracle do not refute": ([found("numeric", ok=False, counterexample=POINT)], {}, Verdict.OPEN),
    "attempts alone": ([ATTEMPT], {}, Verdict.OPEN),
    "corrected": ([WRITTEN, IDENTITY], {"scope": "scalar identity"}, Verdict.CORRECTED),
    "corrected by a proof": ([WRITTEN, PROOF, ATTEMPT], {}, Verdict.CORRECTED),
    "correction not proved": ([WRITTEN, IDENTITY], {}, Verdict.REFUTED),
    "correction not installed": (
        [WRITTEN, found("proof", ok=None, installed=False), ATTEMPT],
        {},
        Verdict.OPEN,
    ),
    "refuted": ([WRITTEN], {}, Verdict.REFUTED),
    "refuted without a counterexample": ([found("exact", "refutes as written")], {}, Verdict.OPEN),
    "as written survives": (
        [found("symbolic", "refutes as written", False), IDENTITY],
        {"scope": "scalar identity"},
        Verdict.OPEN,
    ),
    "proved if": ([PROOF, ATTEMPT, INSIDE, OUTSIDE], {"condition": "c"}, Verdict.PROVED_IF),
    "proved if, condition not named": ([PROOF, ATTEMPT, INSIDE, OUTSIDE], {}, Verdict.OPEN),
    "proved if, nothing inside": ([PROOF, ATTEMPT, OUTSIDE], {"condition": "c"}, Verdict.OPEN),
    "proved if, nothing outside": ([PROOF, ATTEMPT, INSIDE], {"condition": "c"}, Verdict.OPEN),
    "proved if, holds outside too": (
        [PROOF, ATTEMPT, INSIDE, found("exact", "outside condition", False)],
        {"condition": "c"},
        Verdict.OPEN,
    ),
    "proved if, no proof": ([INSIDE, OUTSIDE], {"condition": "c"}, Verdict.OPEN),
    "fails inside its condition": (
        [PROOF, ATTEMPT, found("exact", "inside condition", False, counterexample=POINT), OUTSIDE],
        {"condition": "c"},
        Verdict.REFUTED,
    ),
    "supported": ([found("experiment", seeds=10)], {}, Verdict.SUPPORTED),
    "unsupported": ([found("experiment", ok=False, seeds=10)], {}, Verdict.UNSUPPORTED),
    "one of two unsupported": (
        [found("experiment", seeds=10), found("experiment", ok=False, seeds=12)],
        {},
        Verdict.UNSUPPORTED,
    ),
    "between the rules": ([found("experiment", ok=None, seeds=10)], {}, Verdict.UNDECIDED),
    "pilot in favour": ([found("experiment", seeds=9)], {}, Verdict.UNDECIDED),
    "pilot against": ([found("experiment", ok=False, seeds=9)], {}, Verdict.UNDECIDED),
    "seeds not stated": ([found("experiment")], {}, Verdict.UNDECIDED),
    "runs not installed": ([found("experiment", ok=None, installed=False)], {}, Verdict.OPEN),
    "an experiment is not proved by an identity": (
        [IDENTITY, found("experiment", seeds=3)],
        {"scope": "scalar identity"},
        Verdict.UNDECIDED,
    ),
}


@pytest.mark.parametrize(("evidence", "claim", "verdict"), CASES.values(), ids=CASES)
def test_rule(evidence, claim, verdict):
    assert decide(evidence, **claim)[0] is verdict


@pytest.mark.parametrize("name", ["proof not installed", "runs not installed", "correction not installed"])
def test_missing_evidence_says_so(name):
    evidence, claim, _ = CASES[name]
    assert decide(evidence, **claim)[1].startswith("evidence not installed")


def test_every_verdict_is_reached():
    assert {verdict for _, _, verdict in CASES.values()} == set(Verdict)


@pytest.mark.parametrize(
    ("kind", "role", "scope"),
    [
        ("symbolic", "supports", "all V"),
        ("exact", "supports", "scalar identity"),
        ("interval", "supports", "all V"),
        ("guess", "supports", ""),
        ("exact", "helps", "instance"),
    ],
)
def test_evidence_refuses_what_it_cannot_be(kind, role, scope):
    with pytest.raises(ValueError, match=r"kind=|role=|scope="):
        Evidence(kind, role, True, "x", scope)


def test_experiments_and_ledger_mean_the_same_by_a_pilot():
    assert SEEDS_FOR_A_VERDICT == statistics.CONFIRMATORY_SEEDS
