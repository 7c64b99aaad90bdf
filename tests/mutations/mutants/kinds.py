"""One edit of one file, and the checks that should notice it; a constructor per part of the package."""

from typing import NamedTuple

_DIVERGENCES = ("tests/divergences",)
_W1 = tuple(f"tests/transport/test_w1_{name}.py" for name in ("values", "gradients", "laws", "loss"))


class Mutant(NamedTuple):
    """One edit of one file.

    `old` occurs exactly once in the file. `chapters`, which may name single claims by their ids, are verified (as by
    `kdtheory verify`), `tests`, which may be node ids, are run; a mutant counts as caught if either fails. `survives`
    is for an edit that changes nothing: why it must not be caught.
    """

    what: str
    file: str
    old: str
    new: str
    chapters: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    survives: str = ""


def definition(what: str, old: str, new: str) -> Mutant:
    return Mutant(what, "kdtheory/divergences/definitions.py", old, new, ("gradients",), _DIVERGENCES)


def derivation(what: str, old: str, new: str) -> Mutant:
    return Mutant(what, "kdtheory/divergences/derive.py", old, new, ("gradients",), _DIVERGENCES)


def fast(what: str, old: str, new: str, file: str = "logspace") -> Mutant:
    return Mutant(what, f"kdtheory/divergences/{file}.py", old, new, (), _DIVERGENCES)


def transport(what: str, file: str, old: str, new: str, *checks: str) -> Mutant:
    """An edit of the transport library; `checks` are test modules of tests/transport ("topk") or ids of claims."""
    ids = tuple(name for name in checks if "." in name)
    tests = tuple(f"tests/transport/test_{name}.py" for name in checks if "." not in name)
    return Mutant(what, f"kdtheory/transport/{file}.py", old, new, ids, tests if checks else _W1)


def simplex(what: str, old: str, new: str, *ids: str) -> Mutant:
    tests = ("tests/test_simplex.py", "tests/test_simplex_manifold.py")
    return Mutant(what, "kdtheory/simplex.py", old, new, ids, tests)


def dynamics(what: str, old: str, new: str, *ids: str) -> Mutant:
    return Mutant(what, "kdtheory/dynamics.py", old, new, ids, ("tests/test_dynamics.py",))


def interval(what: str, old: str, new: str, *ids: str) -> Mutant:
    return Mutant(what, "kdtheory/ledger/interval.py", old, new, ids, ("tests/ledger/test_intervals.py",))


def claim(what: str, file: str, old: str, new: str, *ids: str) -> Mutant:
    """A formula in a claim, caught by the claims with these ids (none: by the chapter, which is the file's folder)."""
    return Mutant(what, f"kdtheory/claims/{file}.py", old, new, ids or (file.partition("/")[0],))


def oracle(what: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    """A formula that claims rest on without looking at it, caught by tests."""
    return Mutant(what, f"kdtheory/claims/{file}.py", old, new, (), tuple(f"tests/claims/{test}" for test in tests))
