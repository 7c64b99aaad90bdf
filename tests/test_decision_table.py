"""The decision table says what the verdicts carry, and stops saying it when one of them changes."""

import json
import re
import shutil
from itertools import combinations

import pytest

from kdtheory import claims, figures
from kdtheory.ledger import Claim, Verdict, proofs
from kdtheory.publish import decisions
from kdtheory.publish.situations import ADVICE, Advice, _needs

REGISTRY = claims.load()
IDS = {item.id for item in REGISTRY if isinstance(item, Claim)}
SITUATIONS = list(dict.fromkeys(advice.situation for advice in ADVICE))
CHAPTER = "12_verdict.md"

each_advice = pytest.mark.parametrize("advice", ADVICE, ids=lambda advice: f"{advice.situation}: {advice.loss}")


@pytest.fixture(scope="module")
def stored(root):
    """Today's verdicts by claim."""
    found = figures.load_data("verdicts", root / "figures" / "data")
    return dict(zip(found["id"], map(Verdict, found["verdict"]), strict=True))


@pytest.fixture
def folder(tmp_path, root):
    """A data folder whose verdicts may be changed: call it with verdicts by claim."""
    shutil.copy(root / "figures" / "data" / "verdicts.json", tmp_path)

    def change(verdicts):
        path = tmp_path / "verdicts.json"
        report = json.loads(path.read_text())
        for item in report["claims"]:
            item["verdict"] = verdicts.get(item["id"], item["verdict"])
        path.write_text(json.dumps(report))
        return tmp_path

    return change


def row(data, situation):
    (found,) = decisions.table(data).query("situation == @situation").to_dict("records")
    return found


# -- the records -------------------------------------------------------------------------------------------------------
@each_advice
def test_claims_of_a_piece_of_advice_exist(advice):
    assert advice.rests_on
    assert [id for id in advice.rests_on if id not in IDS] == []


@each_advice
def test_a_reason_holds_no_typed_number_and_no_verdict(advice):
    text = f"{advice.situation} {advice.loss} {advice.why}"
    assert not re.search(r"\d+[.,]\d|\d\s?%|\b(PROVED|CORRECTED|SUPPORTED|UNSUPPORTED|UNDECIDED)\b", text)
    assert "|" not in text


def test_alternatives_of_a_situation_exclude_each_other():
    """A claim that both need, with no verdict that serves both."""
    for first, second in combinations(ADVICE, 2):
        if first.situation == second.situation:
            shared = first.rests_on.keys() & second.rests_on.keys()
            assert any(not set(first.rests_on[id]) & set(second.rests_on[id]) for id in shared), first.situation


def test_a_statement_that_holds_without_condition_serves_where_a_condition_was_expected():
    assert _needs(PROVED="a b", PROVED_IF="c") == {
        "a": (Verdict.PROVED,),
        "b": (Verdict.PROVED,),
        "c": (Verdict.PROVED_IF, Verdict.PROVED),
    }


# -- the table ---------------------------------------------------------------------------------------------------------
def test_there_is_one_row_a_situation_and_some_are_settled(root):
    shown = decisions.table(root / "figures" / "data")
    assert list(shown["situation"]) == SITUATIONS
    assert (shown["loss"] != decisions.NOT_SETTLED).sum() >= len(SITUATIONS) / 2


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_row_shows_its_claims_under_their_verdicts(situation, root, stored):
    found = row(root / "figures" / "data", situation)
    listed = {
        id: verdict
        for part in filter(None, found["claims"].split("; "))
        for verdict, ids in [part.split(": ")]
        for id in ids.split(", ")
    }
    assert {id: stored[id] for id in listed} == listed
    words = {"stored runs" if verdict in ("SUPPORTED", "UNSUPPORTED") else "theorem" for verdict in listed.values()}
    assert found["grounds"] == ("" if found["loss"] == decisions.NOT_SETTLED else " and ".join(sorted(words)[::-1]))


@each_advice
def test_advice_is_given_where_all_its_verdicts_hold_and_not_settled_where_one_does_not(advice, folder, stored):
    """Each claim is set to what is needed, then one after the other to UNDECIDED: the control."""
    known = {id: serve[0] for id, serve in advice.rests_on.items() if id in stored}
    if len(known) == len(advice.rests_on):
        assert row(folder(known), advice.situation)["loss"] == advice.loss
    for id in known:
        found = row(folder({**known, id: "UNDECIDED"}), advice.situation)
        assert found["loss"] == decisions.NOT_SETTLED
        assert f"{id} is UNDECIDED, needed: " in found["why"]
        assert f'{" or ".join(advice.rests_on[id])} for "{advice.loss}"' in found["why"]


def test_a_claim_without_a_stored_verdict_settles_nothing():
    advice = Advice("any", "forward KL", "because", _needs(PROVED="here.there", SUPPORTED="here.gone"))
    assert decisions.missing(advice, {"here.there": Verdict.PROVED}) == ["here.gone"]
    assert decisions.missing(advice, {"here.there": Verdict.PROVED, "here.gone": Verdict.SUPPORTED}) == []


def test_alternatives_change_places_with_the_verdict(folder):
    situation = next(text for text in SITUATIONS if "token tree as the metric" in text)
    for verdict, start in (("SUPPORTED", "W1 on the tree"), ("UNSUPPORTED", "depends on the measure")):
        assert row(folder({"students.wasserstein-beats-kl": verdict}), situation)["loss"].startswith(start)


# -- the chapter -------------------------------------------------------------------------------------------------------
PROVED = {Verdict.PROVED, Verdict.PROVED_IF, Verdict.CORRECTED}
MEASURED = {Verdict.SUPPORTED, Verdict.UNSUPPORTED}
OPEN = {Verdict.UNDECIDED, Verdict.OPEN}
TOPICS = "|".join(sorted({id.split(".")[0] for id in IDS}))


def named(text):
    """Claims in a text, which stand there without backticks: these would give them a second chapter."""
    return [found[0] for found in re.finditer(rf"(?<![\w`])({TOPICS})\.[a-z0-9]+(-[a-z0-9]+)*", text)]


@pytest.fixture(scope="module")
def chapter(root):
    return (root / "proofs" / CHAPTER).read_text(encoding="utf-8")


@pytest.mark.parametrize(("section", "verdicts"), [("12.3", PROVED), ("12.4", MEASURED), ("12.5", OPEN)])
def test_a_claim_named_as_proved_measured_or_not_settled_is_that(section, verdicts, chapter, stored):
    text = chapter.split(f"## {section} ")[1].split("\n## ")[0]
    assert len(named(text)) >= 5
    assert {id: stored.get(id) for id in named(text) if stored.get(id) not in verdicts} == {}


def test_claims_named_in_a_text_are_found():
    assert named("x (9.3, students.tail), [a](09_students.md#b), `students.tail-line`.") == ["students.tail"]


def test_the_chapter_holds_the_table_and_names_claims_and_places_that_exist(root, chapter):
    assert decisions.to_markdown(root / "figures" / "data") in chapter
    prose = re.sub(r"<!-- generated.*?<!-- /generated -->", "", chapter, flags=re.DOTALL)
    assert set(named(prose)) <= IDS
    links = re.findall(r"\]\(([a-z0-9_]+\.md)#([a-z0-9-]+)\)", prose)
    assert links
    for file, anchor in links:
        assert anchor in proofs.anchors((root / "proofs" / file).read_text(encoding="utf-8")), (file, anchor)
