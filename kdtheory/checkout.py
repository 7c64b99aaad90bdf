"""The repository around the package: chapters and stored evidence lie there, not in an installed wheel."""

from __future__ import annotations

from pathlib import Path


class EvidenceNotInstalledError(FileNotFoundError):
    """Stored runs, chapters and notebooks are part of the repository, not of the installed package."""


def root() -> Path | None:
    """The checkout around the package, or None when only the package is installed."""
    place = Path(__file__).resolve().parents[1]
    return place if (place / "pyproject.toml").is_file() and (place / "proofs").is_dir() else None


def required() -> Path:
    """As `root`.

    Raises
    ------
    EvidenceNotInstalledError
        If the package is installed without the repository.
    """
    place = root()
    if place is None:
        raise EvidenceNotInstalledError(
            "evidence not installed: stored runs, chapters and notebooks come with the repository, not with the package"
        )
    return place
