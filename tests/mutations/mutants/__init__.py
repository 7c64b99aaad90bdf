"""Formulas broken on purpose: one small edit each, and the checks that should notice it."""

from tests.mutations.mutants.chapters_01_to_03 import FIRST_CHAPTERS
from tests.mutations.mutants.chapters_04_to_06 import LAST_CHAPTERS
from tests.mutations.mutants.kinds import Mutant
from tests.mutations.mutants.library import LIBRARY

MUTANTS = (*LIBRARY, *FIRST_CHAPTERS, *LAST_CHAPTERS)

__all__ = ["MUTANTS", "Mutant"]
