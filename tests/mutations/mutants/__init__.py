"""Formulas broken on purpose: one small edit each, and the checks that should notice it."""

from tests.mutations.mutants.chapter_07 import TRANSPORT_THEORY
from tests.mutations.mutants.chapter_07_entropic import ENTROPIC
from tests.mutations.mutants.chapter_07_library import TRANSPORT_LIBRARY
from tests.mutations.mutants.chapter_07_practice import TRANSPORT_PRACTICE
from tests.mutations.mutants.chapters_01_to_03 import FIRST_CHAPTERS
from tests.mutations.mutants.chapters_04_to_06 import LAST_CHAPTERS
from tests.mutations.mutants.kinds import Mutant
from tests.mutations.mutants.library import LIBRARY

CHAPTER_07 = (*ENTROPIC, *TRANSPORT_LIBRARY, *TRANSPORT_THEORY, *TRANSPORT_PRACTICE)
MUTANTS = (*LIBRARY, *FIRST_CHAPTERS, *LAST_CHAPTERS, *CHAPTER_07)

__all__ = ["MUTANTS", "Mutant"]
