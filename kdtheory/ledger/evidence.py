"""Evidence: what a check found, how strong its kind is, and which way it points."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

Kind = Literal["formal", "proof", "symbolic", "exact", "interval", "numeric", "experiment"]
Role = Literal["supports", "refutes as written", "attempted refutation", "inside condition", "outside condition"]

SCALAR = "scalar identity"
INSTANCE = "instance"
GENERAL = "all V"

_ROLES_THAT_ASSERT = ("supports", "inside condition", "attempted refutation")


def as_hoped(holds: bool | None, role: Role) -> bool | None:
    """`ok` of a finding: whether what the statement does (hold, fail, None: undecided) is what the role hopes for."""
    return None if holds is None else holds is (role in _ROLES_THAT_ASSERT)


@dataclass(frozen=True)
class Evidence:
    """One finding of a check.

    Parameters
    ----------
    kind
        formal: a compiled theorem; proof: an anchored, hashed text; symbolic: simplifies to zero; exact: rational
        arithmetic; interval: a rigorous enclosure; numeric: compared with an independent oracle; experiment: stored
        runs.
    role
        What the finding is about. "supports", "inside condition" and "attempted refutation" assert the (right)
        statement; "refutes as written" and "outside condition" assert that a statement fails.
    ok
        True: the finding came out as its role hopes (for "refutes as written": a counterexample was found; for
        "attempted refutation": the statement survived). False: it came out the other way. None: undecided.
    says
        One sentence for a reader.
    scope
        What a success covers. Symbolic evidence covers "scalar identity" or "V = n"; exact evidence "instance" or
        "V = n"; interval evidence "instance" or "box …". Never "all V": that takes a proof.
    data
        Values behind the sentence, made JSON-able: `counterexample`, `error`, `tolerance`, `because`, `oracle`, …

    Raises
    ------
    ValueError
        If kind, role or scope is not one of those above.
    """

    kind: Kind
    role: Role
    ok: bool | None
    says: str
    scope: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r}: choose one of {', '.join(get_args(Kind))}")
        if self.role not in get_args(Role):
            raise ValueError(f"role={self.role!r}: choose one of {', '.join(get_args(Role))}")
        if not self._scope_is_allowed():
            raise ValueError(
                f"scope={self.scope!r}: {self.kind} evidence cannot cover it; use a proof or a smaller scope"
            )
        object.__setattr__(self, "ok", None if self.ok is None else bool(self.ok))
        object.__setattr__(self, "data", jsonable(self.data))

    def _scope_is_allowed(self) -> bool:
        fixed_size = self.scope.startswith("V = ")
        if self.kind == "symbolic":
            return fixed_size or self.scope == SCALAR
        if self.kind == "exact":
            return fixed_size or self.scope == INSTANCE
        if self.kind == "interval":
            return self.scope == INSTANCE or self.scope.startswith("box")
        return True

    @property
    def counterexample(self) -> Mapping[str, Any] | None:
        """Values at which the statement this evidence speaks about fails, if it found any."""
        return self.data.get("counterexample") or None

    @property
    def shows_failure(self) -> bool:
        """Whether a statement fails by this evidence: a counterexample, and for floats an independent oracle."""
        found = self.counterexample is not None and (self.kind != "numeric" or bool(self.data.get("oracle")))
        return found and (self.ok is False if self.role in _ROLES_THAT_ASSERT else self.ok is True)

    def to_json(self) -> dict[str, Any]:
        """The evidence as plain JSON values."""
        return asdict(self)


def as_evidence(found: object) -> tuple[Evidence, ...]:
    """Flatten what a check returned: one `Evidence`, or (nested) iterables of them."""
    if isinstance(found, Evidence):
        return (found,)
    if isinstance(found, Iterable) and not isinstance(found, str | bytes | Mapping):
        return tuple(item for part in found for item in as_evidence(part))
    raise TypeError(f"a check returns Evidence or a list of Evidence, not {type(found).__name__}")


def jsonable(value: Any) -> Any:
    """Turn a value into plain JSON: exact numbers become text ("3/4"), infinities and NaN too."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy and torch, without importing either
        return jsonable(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    return str(value)
