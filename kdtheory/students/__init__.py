"""Students that learn from a teacher on real text: corpus, models, training, evaluation, statistics, sweeps.

The heavy libraries are imported by the modules that use them, so that `import kdtheory` stays cheap:

>>> from kdtheory.students import experiment, profiles
>>> experiment.run(profiles.get("smoke"), Path("build/students/smoke"))    # doctest: +SKIP
"""

from __future__ import annotations

EXPERIMENT = "students"
"""Identifier of the experiment: its stored runs lie under ``figures/data/runs/students/``."""
PAIRS = "pairs"
"""Identifier of what is measured on its finished students (H17)."""
