"""What is measured of students in `head-tail`, context by context."""

from __future__ import annotations

import torch
from torch import Tensor

from kdtheory.divergences import akl
from kdtheory.students.heads import HEAD_MASS, shares


@torch.no_grad()
def measure(log_p: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """Means over the contexts of each seed, (S, M, V), (S, M, V) -> (S,).

    ``agree``: share of contexts whose head has the larger part of forward KL's gradient than of reverse KL's;
    ``fkl_share``, ``rkl_share``: these parts; ``head``, ``tail``: Σ|p - q| there; ``tv``; ``entropy_ratio``: student's
    mean entropy over the teacher's; ``sharper``: share of contexts with a student of lower entropy.
    """
    log_p, log_q = log_p.double(), torch.log_softmax(logits.double(), -1)
    forward, backward = shares(log_p, log_q)
    p, q = log_p.exp(), log_q.exp()
    head, gap = akl.head(p, HEAD_MASS), (p - q).abs()
    own, teachers = torch.special.entr(q).sum(-1), torch.special.entr(p).sum(-1)
    found = {"agree": (forward > backward).double(), "fkl_share": forward, "rkl_share": backward,
             "head": (gap * head).sum(-1), "tail": (gap * ~head).sum(-1), "tv": 0.5 * gap.sum(-1),
             "sharper": (own < teachers).double()}  # fmt: skip
    return {name: values.mean(-1) for name, values in found.items()} | {
        "entropy_ratio": own.mean(-1) / teachers.mean(-1)
    }
