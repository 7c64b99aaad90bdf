"""Claims and definitions, and the registry that holds them."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from kdtheory.ledger.evidence import GENERAL
from kdtheory.ledger.proofs import Anchor
from kdtheory.ledger.verdict import Verdict

OWN = "kdtheory"  # the source key of statements that are this project's own
_ID = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9]+(-[a-z0-9]+)*")
_ROW = re.compile(r"S\d-\d\d")

Check = Callable[[], object]


@dataclass(eq=False)
class Claim:
    """A statement with its check. Made by `claim`; see there for the fields."""

    id: str
    statement: str
    source: str
    expected: Verdict
    check: Check
    rows: tuple[str, ...] = ()
    domain: str = ""
    uses: tuple[str, ...] = ()
    proof: Anchor | None = None
    scope: str = GENERAL
    condition: str = ""
    controls: list[Check] = field(default_factory=list)

    @property
    def chapter(self) -> str:
        """The topic before the dot of the id."""
        return self.id.split(".")[0]

    def control(self, check: Check) -> Check:
        """Register a nearby statement that must fail (decorator). A claim may have several."""
        self.controls.append(check)
        return check


@dataclass(frozen=True)
class Definition:
    """A definition, or a remark on history: registered, and without verdict."""

    id: str
    statement: str
    source: str
    rows: tuple[str, ...] = ()

    @property
    def chapter(self) -> str:
        """The topic before the dot of the id."""
        return self.id.split(".")[0]


class RegistrationError(ValueError):
    """A claim that cannot be registered, or a registry that does not hang together."""


class Registry:
    """All claims and definitions by id, in the order they were registered."""

    def __init__(self) -> None:
        self._items: dict[str, Claim | Definition] = {}

    def __iter__(self) -> Iterator[Claim | Definition]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, id: object) -> bool:
        return id in self._items

    def __getitem__(self, id: str) -> Claim | Definition:
        return self._items[id]

    @property
    def ids(self) -> tuple[str, ...]:
        """Every id, claims and definitions."""
        return tuple(self._items)

    def claim(
        self,
        id: str,
        *,
        statement: str,
        source: str,
        expected: Verdict | str,
        rows: Iterable[str] = (),
        domain: str = "",
        uses: Iterable[str] = (),
        proof: Anchor | None = None,
        scope: str = GENERAL,
        condition: str = "",
    ) -> Callable[[Check], Claim]:
        r"""Register a function that returns evidence as the check of a claim (decorator).

        Parameters
        ----------
        id
            "<chapter>.<slug>", e.g. "gradients.rkl-slope"; the chapter is the module's name in `kdtheory.claims`.
        statement
            LaTeX, as the source has it.
        source
            Bibliography key and place: "gu2024minillm, Eq. 1"; several separated by ";". `kdtheory` for our own.
        expected
            The verdict recorded for this claim; a run whose computed verdict differs fails.
        rows
            Rows of `sources.csv` that this claim settles, e.g. ("S1-43",).
        domain
            Where the statement is meant to hold, in words or LaTeX.
        uses
            Ids of claims this one builds on.
        proof
            Where its proof stands: `Anchor("02_gradients#chain-rule", sha256="…")`. The runner adds its evidence.
        scope
            What the statement covers: "scalar identity" (symbolic evidence can prove it), "V = n", "instance" (exact
            evidence can), or anything larger such as "all V", which takes a proof.
        condition
            For PROVED-IF: the condition, in words or LaTeX.

        Raises
        ------
        RegistrationError
            If the id is malformed or taken, the statement or source is empty, or a row is malformed.
        """

        def register(check: Check) -> Claim:
            made = Claim(
                id,
                statement,
                source,
                Verdict(expected),
                check,
                tuple(rows),
                domain,
                tuple(uses),
                proof,
                scope,
                condition,
            )
            self._add(made)
            return made

        return register

    def definition(self, id: str, *, statement: str, source: str, rows: Iterable[str] = ()) -> Definition:
        """Register a definition or a remark on history: no check, no verdict."""
        made = Definition(id, statement, source, tuple(rows))
        self._add(made)
        return made

    def _add(self, item: Claim | Definition) -> None:
        if not _ID.fullmatch(item.id):
            raise RegistrationError(f"id={item.id!r}: write it as <chapter>.<slug>, such as 'gradients.rkl-slope'")
        if item.id in self._items:
            raise RegistrationError(f"id={item.id!r} is registered twice: choose another slug")
        if not item.statement.strip() or not item.source.strip():
            raise RegistrationError(f"{item.id}: statement and source must not be empty")
        for row in item.rows:
            if not _ROW.fullmatch(row):
                raise RegistrationError(f"{item.id}: rows hold {row!r}; write it as 'S1-43'")
        self._items[item.id] = item

    def validate(self) -> None:
        """Raise `RegistrationError` if a claim has no control, or uses an unknown id, or uses itself in a circle."""
        claims = [item for item in self if isinstance(item, Claim)]
        for made in claims:
            if not made.controls:
                raise RegistrationError(f"{made.id} has no control: register a nearby statement that must fail")
            for used in made.uses:
                if used not in self:
                    raise RegistrationError(f"{made.id} uses {used!r}, which is not registered")
        try:
            TopologicalSorter({made.id: made.uses for made in claims}).prepare()
        except CycleError as error:
            raise RegistrationError(f"claims use each other in a circle: {' -> '.join(error.args[1])}") from error


REGISTRY = Registry()
claim = REGISTRY.claim
definition = REGISTRY.definition


def citation_keys(source: str) -> tuple[str, ...]:
    """Bibliography keys of a source: the word before the first comma of each part between semicolons."""
    return tuple(part.split(",")[0].strip() for part in source.split(";") if part.strip())
