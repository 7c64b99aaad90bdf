"""Proofs count only as the anchored text that was read."""

import pytest

from kdtheory.ledger import Anchor, proof
from kdtheory.ledger.proofs import anchors, digest

CHAPTER = """# Chapter

**Theorem 1 (chain rule).** <a id="chain-rule"></a> $x = x$.

*Proof.* Because. ∎

```python
# not a heading
```

**Remark.** <a id="no-proof"></a> Nothing is shown here.

## Next

Prose.
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "02_test.md").write_text(CHAPTER, encoding="utf-8")
    return tmp_path


def test_text_runs_from_anchor_to_anchor_or_heading():
    found = anchors(CHAPTER)
    assert list(found) == ["chain-rule", "no-proof"]
    assert found["chain-rule"].startswith("**Theorem 1")
    assert "# not a heading" in found["chain-rule"]
    assert found["no-proof"].endswith("shown here.")


def test_the_recorded_text_is_a_proof(folder):
    recorded = digest(anchors(CHAPTER)["chain-rule"])[:16]
    assert proof(Anchor("02_test#chain-rule", recorded), folder=folder).ok is True


@pytest.mark.parametrize(("old", "new"), [("Because", "Perhaps"), ("$x = x$", "$x = y$")])
def test_a_changed_text_is_none(folder, old, new):
    recorded = digest(anchors(CHAPTER)["chain-rule"])
    (folder / "02_test.md").write_text(CHAPTER.replace(old, new), encoding="utf-8")
    evidence = proof(Anchor("02_test#chain-rule", recorded), folder=folder)
    assert evidence.ok is False
    assert "record sha256=" in evidence.says


def test_blank_lines_at_the_end_do_not_count(folder):
    recorded = digest(anchors(CHAPTER)["chain-rule"])
    (folder / "02_test.md").write_text(CHAPTER.replace("∎\n", "∎  \n\n\n"), encoding="utf-8")
    assert proof(Anchor("02_test#chain-rule", recorded), folder=folder).ok is True


@pytest.mark.parametrize(
    ("place", "sha256", "says"),
    [
        ("03_none#chain-rule", "0" * 64, "does not exist"),
        ("02_test#nowhere", "0" * 64, "no such anchor"),
        ("02_test#no-proof", digest(anchors(CHAPTER)["no-proof"]), "no complete proof"),
        ("02_test#chain-rule", digest(anchors(CHAPTER)["chain-rule"])[:8], "not the text"),
        ("02_test#chain-rule", "", "not the text"),
    ],
)
def test_what_is_not_a_proof(folder, place, sha256, says):
    evidence = proof(Anchor(place, sha256), folder=folder)
    assert evidence.ok is False
    assert says in evidence.says


def test_an_anchor_occurs_once():
    with pytest.raises(ValueError, match="twice"):
        anchors('<a id="x"></a>\n<a id="x"></a>')


def test_without_chapters_the_evidence_is_not_installed(monkeypatch):
    monkeypatch.setattr("kdtheory.ledger.proofs.chapters", lambda: None)
    evidence = proof(Anchor("02_test#chain-rule", "0" * 64))
    assert evidence.ok is None
    assert "evidence not installed" in evidence.says
