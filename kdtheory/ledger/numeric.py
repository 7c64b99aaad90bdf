"""Numbers against an independent oracle. They can refute; they never prove."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kdtheory.ledger.evidence import Evidence, Role, as_hoped


def compare(
    ours: Any,
    theirs: Any,
    *,
    oracle: str,
    tolerance: float,
    because: str,
    relative_to: Any = 1.0,
    role: Role = "supports",
    says: str = "",
) -> Evidence:
    """Compare numbers with those of an oracle that is not our code.

    Parameters
    ----------
    ours, theirs
        Arrays (or numbers, tensors) of one shape. Equal infinities agree; a NaN never does.
    oracle
        What the other side is: "mpmath, 50 digits", "scipy.optimize.linprog", "central difference".
    tolerance, because
        Largest |ours − theirs| / relative_to that counts as agreement, and the reason for this number.
    relative_to
        Scale of the error (positive; broadcasts), such as the sum of absolute terms.
    role
        With "refutes as written" or "outside condition", `ours` is the stated value and success means disagreement.
    says
        What is compared, in words.
    """
    if not oracle or not because:
        raise ValueError("numeric.compare needs oracle= (what it is) and because= (the reason for the tolerance)")
    a, b = (np.asarray(side, dtype=np.float64) for side in (ours, theirs))
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"ours has shape {a.shape}, theirs {b.shape}: compare arrays of one shape, not empty")
    with np.errstate(invalid="ignore"):
        error = np.where(a == b, 0.0, np.abs(a - b)) / np.asarray(relative_to, dtype=np.float64)
    error = np.where(np.isnan(error), np.inf, error)
    worst = int(np.argmax(error))
    agree = bool(error.flat[worst] <= tolerance)
    data: dict[str, Any] = {
        "oracle": oracle,
        "error": float(error.flat[worst]),
        "tolerance": tolerance,
        "because": because,
    }
    data["compared"] = int(a.size)
    if not agree:
        index = [int(i) for i in np.unravel_index(worst, a.shape)]
        data["counterexample"] = {"index": index, "ours": float(a.flat[worst]), "oracle": float(b.flat[worst])}
    sentence = (
        f"{says or 'numbers'} against {oracle}: largest error {error.flat[worst]:.2g} (tolerance {tolerance:.2g})."
    )
    return Evidence("numeric", role, as_hoped(agree, role), sentence, "", data)


def attempt(
    violation: Callable[[np.random.Generator], tuple[float, Mapping[str, Any]]],
    *,
    draws: int,
    oracle: str,
    tolerance: float,
    because: str,
    seed: int = 0,
    says: str = "",
) -> Evidence:
    """Try to refute a statement on random draws (role "attempted refutation").

    Parameters
    ----------
    violation
        From a generator: by how much the statement fails there (≤ 0: it holds) and the point, JSON-able.
    draws
        Number of draws, at least 1.
    oracle
        What computes the two sides, independently of the formula under test.
    tolerance, because
        Largest violation that rounding explains, and why.

    Returns
    -------
    Evidence
        ok if no draw violates the statement by more than the tolerance; otherwise with the counterexample.
    """
    if draws < 1 or not because or not oracle:
        raise ValueError("numeric.attempt needs draws >= 1, oracle= and because= (the reason for the tolerance)")
    rng = np.random.default_rng(seed)
    worst, at = -np.inf, {}
    for _ in range(draws):
        amount, point = violation(rng)
        amount = float("inf") if np.isnan(amount) else float(amount)
        if amount > worst:
            worst, at = amount, dict(point)
    survived = bool(worst <= tolerance)
    data: dict[str, Any] = {"draws": draws, "seed": seed, "oracle": oracle, "worst": worst, "at": at}
    data |= {"tolerance": tolerance, "because": because}
    if not survived:
        data["counterexample"] = {**at, "violation": worst}
    verb = "survives" if survived else "fails within"
    sentence = (
        f"{says or 'the statement'} {verb} {draws} draws: worst violation {worst:.2g} (tolerance {tolerance:.2g})."
    )
    return Evidence("numeric", "attempted refutation", survived, sentence, "", data)
