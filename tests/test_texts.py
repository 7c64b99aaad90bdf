"""Chapters, claims and bibliography say the same things about each other."""

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from kdtheory import claims
from kdtheory.divergences import RECORDS
from kdtheory.ledger import Claim, proofs, sources
from kdtheory.ledger.claim import OWN, citation_keys

FOLDER = Path(__file__).parents[1] / "proofs"
CHAPTERS = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
KEYS = re.findall(r"^@\w+\{([^,\s]+),", (FOLDER / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)
REGISTRY = claims.load()
TOPICS = {row.chapter for row in sources.rows()} | {item.chapter for item in REGISTRY}


def claim_ids(text, topics=TOPICS):
    """Ids in backticks whose part before the dot is a topic: `gradients.rkl-slope`."""
    found = re.findall(r"`([a-z][a-z0-9_]*)\.([a-z0-9-]+)`", text)
    return [f"{topic}.{slug}" for topic, slug in found if topic in topics]


def cited(text):
    """Keys of pandoc citations: [@key], [@key, p. 3; @other] and @key in running text."""
    return re.findall(r"(?<![\w@/])@([a-z][a-z0-9]+)", text)


def test_patterns_find_ids_and_keys():
    assert claim_ids("see `gradients.rkl-slope` and `torch.sum`") == ["gradients.rkl-slope"]
    assert cited("[@gu2024minillm, Eq. 1; see @ko2024distillm] a@b.org") == ["gu2024minillm", "ko2024distillm"]


def test_there_are_chapters_with_claims():
    assert any(claim_ids(text) for text in CHAPTERS.values())


@pytest.mark.parametrize("name", CHAPTERS)
def test_claims_named_in_a_chapter_exist(name):
    assert [id for id in claim_ids(CHAPTERS[name]) if id not in REGISTRY] == []


@pytest.mark.parametrize("id", [item.id for item in REGISTRY if isinstance(item, Claim)])
def test_a_claim_is_named_in_exactly_one_chapter(id):
    named_in = [name for name, text in CHAPTERS.items() if id in claim_ids(text)]
    assert len(named_in) == 1, f"{id} is named in {named_in}"
    assert named_in[0][3:-3] == REGISTRY[id].chapter


@pytest.mark.parametrize("name", CHAPTERS)
def test_citations_in_a_chapter_exist(name):
    assert set(cited(CHAPTERS[name])) <= set(KEYS)


@pytest.mark.parametrize("item", REGISTRY, ids=lambda item: item.id)
def test_citations_of_a_claim_exist(item):
    assert citation_keys(item.source)
    assert set(citation_keys(item.source)) <= {*KEYS, OWN}


@pytest.mark.parametrize("record", RECORDS.values(), ids=lambda record: record.name)
def test_citations_of_a_divergence_exist(record):
    assert set(citation_keys(record.source)) <= set(KEYS)


def test_citations_of_the_source_table_exist_and_keys_are_unique():
    assert {row.source for row in sources.rows()} <= set(KEYS)
    assert len(KEYS) == len(set(KEYS))


@pytest.mark.parametrize("item", [item for item in REGISTRY if getattr(item, "proof", None)], ids=lambda item: item.id)
def test_a_proof_stands_in_the_chapter_of_its_claim_or_of_what_it_uses(item):
    topic = item.proof.chapter[3:]
    assert topic in {item.chapter, *(used.split(".")[0] for used in item.uses)}
    assert item.proof.name in proofs.anchors(CHAPTERS.get(f"{item.proof.chapter}.md", ""))


def emphasised_by_underscores(text):
    """Lines of a page in which Markdown takes underscores, which only formulas hold here, for emphasis."""
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    starts = ("em_open", "strong_open")
    return [
        block.map[0] + 1
        for block in blocks
        if block.type == "inline"
        and any(token.type in starts and token.markup.startswith("_") for token in block.children)
    ]


def test_a_formula_that_turns_into_emphasis_is_found():
    assert emphasised_by_underscores(r"$(a)_+$ and $(b)_+$") == [1]
    assert emphasised_by_underscores(r"$(a)_ +$ and $(b)_ +$, *meant*") == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_formula_turns_into_emphasis(name):
    assert emphasised_by_underscores(CHAPTERS[name]) == []
