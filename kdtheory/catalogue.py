"""Every loss by name, divergences and transport alike."""

from __future__ import annotations

import difflib
from typing import Any

from kdtheory.divergences import FACTORIES
from kdtheory.divergences.protocol import Loss


def divergence(name: str, **parameters: Any) -> Loss:
    """The loss called `name`, with its parameters.

    Parameters
    ----------
    name : str
        ``fkl rkl jsd tvd skl srkl akl chi2 neyman hellinger2 amari renyi cross_entropy``,
        or of transport: ``w1 w1_topk sliced_w1 sinkhorn``, as published
        ``sinkd uld emo wkd assisted_sinkhorn``, and against its stall ``tree_kl natural_w1 similarity_kl geometric``.
    **parameters
        ``beta`` for jsd, ``alpha`` for skl, srkl, amari, renyi, ``mu`` for akl, ``cost`` for transport, with
        ``epsilon`` for sinkhorn, wkd, assisted_sinkhorn, similarity_kl and geometric and ``weight`` for tree_kl; see
        each class of `kdtheory.transport` for the rest.

    Returns
    -------
    Loss
        With ``.value(p, q)``, ``.logit_gradient(teacher_logits=, student_logits=)`` and ``.loss(...)``.

    Raises
    ------
    ValueError
        If the name is unknown, or a parameter is unknown or outside its domain.

    Examples
    --------
    >>> divergence("skl", alpha=0.1)
    <DivergenceLoss skl(alpha=0.1)>
    """
    from kdtheory.transport import LOSSES

    known = {**FACTORIES, **LOSSES}
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"no divergence is called {name!r}{hint} Known: {', '.join(known)}")
    try:
        return known[name](**parameters)
    except TypeError as error:  # an unexpected or missing keyword of a class
        raise ValueError(f"{name}: {str(error).split('__init__() ')[-1]}") from None
