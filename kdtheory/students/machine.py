"""The machine under a training run: its processes, its memory, its name."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch

from kdtheory.students.profiles import Profile


class TrainingMemoryError(MemoryError):
    """A training step does not fit; the message says what to change."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, on the CPU or a GPU."""
    # the CPU's allocator raises a bare RuntimeError
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error)


def device() -> torch.device:
    """The GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processes(profile: Profile) -> Any:
    """The `Accelerator` of this process: alone, or one of those that a launcher started."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # it remembers the precision of an earlier run in this process
    return Accelerator(mixed_precision=profile.precision, cpu=not torch.cuda.is_available())


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, in MiB; of the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def device_name() -> str:
    """The GPU's name, or the processor's."""
    import platform

    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
