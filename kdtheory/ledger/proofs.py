"""Proofs in the chapters: the text behind an anchor, its hash, and the evidence it gives."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from kdtheory import checkout
from kdtheory.ledger.evidence import Evidence, Role
from kdtheory.ledger.verdict import NOT_INSTALLED

END_OF_PROOF = "∎"
_ANCHOR = re.compile(r'<a id="([a-z0-9-]+)"></a>')
_HEADING = re.compile(r"#{1,6} ")


@dataclass(frozen=True)
class Anchor:
    """A place in a chapter: `Anchor("02_gradients#chain-rule", sha256="…")`; at least 16 hex digits of the hash."""

    place: str
    sha256: str

    @property
    def chapter(self) -> str:
        """File name of the chapter, without `.md`."""
        return self.place.partition("#")[0]

    @property
    def name(self) -> str:
        """The anchor inside the chapter."""
        return self.place.partition("#")[2]

    @property
    def path(self) -> str:
        """File and anchor, relative to the repository."""
        return f"proofs/{self.chapter}.md#{self.name}"


def chapters() -> Path | None:
    """The folder of chapters, or None in an installation without them."""
    root = checkout.root()
    return root / "proofs" if root else None


def anchors(text: str) -> dict[str, str]:
    """Every anchored text of a chapter, by anchor.

    A text starts at the line that holds `<a id="name"></a>` and ends before the next anchor, the next heading outside
    a code fence, or the end of the file. Trailing blanks and repeated empty lines do not count.

    Raises
    ------
    ValueError
        If an anchor occurs twice.
    """
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        match = _ANCHOR.search(line)
        if match:
            if match[1] in found:
                raise ValueError(f"anchor {match[1]!r} occurs twice in one chapter")
            current = found.setdefault(match[1], [])
        elif not fenced and _HEADING.match(line):
            current = None
        if current is not None:
            current.append(line.rstrip())
    return {name: re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() for name, lines in found.items()}


def digest(text: str) -> str:
    """SHA-256 of an anchored text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def proof(anchor: Anchor, *, role: Role = "supports", folder: Path | None = None) -> Evidence:
    """Evidence of kind `proof`: the anchored text exists, ends a proof, and is the one whose hash was recorded.

    Parameters
    ----------
    anchor
        Place and recorded hash.
    role
        "supports", or "inside condition" for a statement proved under its condition.
    folder
        Where the chapters are; by default those of the checkout.
    """
    folder = folder or chapters()
    place = anchor.path
    data = {"place": place, "sha256": anchor.sha256}
    if folder is None:
        return Evidence("proof", role, None, f"{NOT_INSTALLED}: {place}", data=data | {"installed": False})
    problem = _problem(anchor, folder)
    return Evidence("proof", role, not problem, f"{place} {problem}" if problem else f"{place}.", data=data)


def _problem(anchor: Anchor, folder: Path) -> str:
    path = folder / f"{anchor.chapter}.md"
    if not path.is_file():
        return "does not exist"
    text = anchors(path.read_text(encoding="utf-8")).get(anchor.name)
    if text is None:
        return "has no such anchor"
    if "Proof" not in text or END_OF_PROOF not in text:
        return f"holds no complete proof: it needs the word 'Proof' and the mark {END_OF_PROOF}"
    now = digest(text)
    if len(anchor.sha256) < 16 or not now.startswith(anchor.sha256):
        return f"is not the text whose hash was recorded: read it again, then record sha256={now[:16]!r}"
    return ""
