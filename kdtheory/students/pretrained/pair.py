"""A teacher and a student that speak the same tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from kdtheory.students import store
from kdtheory.students.pretrained.source import Source, too_narrow


@dataclass(frozen=True)
class Pair:
    """Two causal language models with one vocabulary.

    Logits may be wider than the tokenizer: models are padded to multiples of 64 or 128, and one family may pad its
    sizes differently. Padding columns stand for no token and were never a training target, so what they hold means
    nothing: both sides are cut to the tokenizer's ids, and each softmax is over real tokens alone,
    p(token | the token is real). An id without a token below the largest one is kept.

    Attributes
    ----------
    tokenizer : transformers tokenizer
        The teacher's: its chat template and end token are those that the teacher was trained with.
    vocabulary : int
        V, one more than the largest token id.
    positions : int or None
        The longest input that both models accept; None if neither names a limit.
    """

    tokenizer: Any
    vocabulary: int
    positions: int | None
    _teacher: Source
    _student: Source

    @classmethod
    def load(cls, teacher: str, student: str) -> Pair:
        """Read configurations and tokenizers; no weights yet.

        Parameters
        ----------
        teacher, student : str
            A folder written by `save_pretrained` (model and tokenizer), or a name on the Hugging Face Hub.

        Raises
        ------
        ValueError
            If a side cannot be found or read, is not a causal language model, has fewer logits than tokens, or the
            tokenizers differ; the message names the side and says what to do.
        """
        sources = Source.find("teacher", teacher), Source.find("student", student)
        configs = [source.config().get_text_config() for source in sources]
        ours, theirs = (source.tokenizer() for source in sources)
        _same_tokens(ours.get_vocab(), theirs.get_vocab(), sources)
        vocabulary = max(ours.get_vocab().values()) + 1
        for source, config in zip(sources, configs, strict=True):
            if config.vocab_size < vocabulary:
                raise ValueError(too_narrow(source.side, source.name, config.vocab_size, vocabulary))
        limits = [limit for config in configs if (limit := getattr(config, "max_position_embeddings", None))]
        return cls(ours, vocabulary, min(limits, default=None), *sources)

    def teacher(self) -> nn.Module:
        """A fresh teacher: float32 weights, CPU, evaluation mode; raises ValueError as `Source.model` does."""
        return self._teacher.model(self.vocabulary)

    def student(self) -> nn.Module:
        """A fresh student: float32 weights, CPU, evaluation mode; raises ValueError as `Source.model` does."""
        return self._student.model(self.vocabulary)

    def logits(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Next-token logits over the shared tokens.

        Parameters
        ----------
        model : nn.Module
            Teacher or student.
        tokens : Tensor of int64, shape (B, T)
            Padding stands on the right, where no earlier position sees it.

        Returns
        -------
        Tensor, shape (B, T, V)
            A view without the padding columns.

        Raises
        ------
        ValueError
            If T is more than `positions`.
        """
        if self.positions is not None and tokens.shape[1] > self.positions:
            raise ValueError(f"length = {tokens.shape[1]}, but the pair has {self.positions} positions: ask less")
        return model(input_ids=tokens, use_cache=False).logits[..., : self.vocabulary]

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 over both sides' weights and configuration files, or commits of the Hub.

        For provenance and resume keys: it follows the content, not the path.
        """
        return store.digest(["pair", self._teacher.digest(), self._student.digest()])


def _same_tokens(teacher: dict[str, int], student: dict[str, int], sources: tuple[Source, Source]) -> None:
    differing = [token for token in {**teacher, **student} if teacher.get(token) != student.get(token)]
    if not differing:
        return
    ids = {token: (teacher.get(token), student.get(token)) for token in differing}
    first = min(differing, key=lambda token: (min(i for i in ids[token] if i is not None), token))
    places = ("no token" if i is None else f"id {i}" for i in ids[first])
    where = " and ".join(f"{place} of the {s.side} {s.name!r}" for place, s in zip(places, sources, strict=True))
    raise ValueError(
        f"the tokenizers differ in {len(differing)} of {len(teacher.keys() | student.keys())} tokens; the first, "
        f"{first!r}, is {where}. These losses compare the same token on both sides: take a student of the teacher's "
        "family, or transport between the rows of both vocabularies embedded in one space, which needs no shared "
        "vocabulary (kd.TokenCost.embedding)"
    )
