"""One model's files: a local folder, or a commit of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub import utils as hub
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from kdtheory.students import models, store

_WEIGHTS = (".safetensors", ".bin")
_HASHED = (*_WEIGHTS, ".json", ".model", ".txt", ".jinja")  # weights, configurations, tokenizers, chat templates


@dataclass(frozen=True)
class Source:
    """Where one side's model, configuration and tokenizer come from.

    Attributes
    ----------
    side : str
        ``"teacher"`` or ``"student"``, for messages.
    name : str
        As it was given: a folder written by `save_pretrained`, or a name on the Hub.
    commit : str or None
        Of the Hub; None for a folder.
    """

    side: str
    name: str
    commit: str | None

    @classmethod
    def find(cls, side: str, name: str) -> Source:
        """Locate a model without reading its weights.

        A Hub name that is in the local cache is used at the cached commit, so that a run can be repeated and resumed.

        Raises
        ------
        ValueError
            If neither a folder nor the Hub has it, or the folder holds no model; the message says what was tried.
        """
        folder = Path(name)
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise ValueError(f"{side}: the folder {name!r} holds no config.json: write it with save_pretrained")
            if not any(path.suffix in _WEIGHTS for path in folder.iterdir()):
                raise ValueError(
                    f"{side}: the folder {name!r} holds a configuration but no weights (*.safetensors or *.bin): "
                    "write them with save_pretrained"
                )
            return cls(side, name, None)
        return cls(side, name, _commit(side, name))

    def config(self) -> Any:
        """The configuration of a causal language model.

        Raises
        ------
        ValueError
            If it cannot be read, or describes an encoder-decoder or another model that is not causal.
        """
        config = self._read(AutoConfig, "configuration")
        kind = f"{self.side}: {self.name!r} is a {config.model_type} model"
        remedy = "give a causal (decoder-only) language model"
        if config.is_encoder_decoder:
            raise ValueError(f"{kind}, an encoder-decoder: {remedy}")
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"{kind}, which transformers cannot run as a causal language model: {remedy}")
        saved = config.architectures or []
        if saved and not set(saved) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
            raise ValueError(f"{kind} saved as {', '.join(saved)}, not as a causal language model: {remedy}")
        return config

    def tokenizer(self) -> Any:
        """The tokenizer; the end token pads where there is no padding token.

        Raises
        ------
        ValueError
            If there is none, or it has no end token.
        """
        tokenizer = self._read(AutoTokenizer, "tokenizer")
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # what transformers makes of no file
            raise ValueError(f"{self.side}: {self.name!r} holds no tokenizer: write it there with save_pretrained")
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"{self.side}: the tokenizer of {self.name!r} has no end token (eos_token), which ends every document "
                "and response: set tokenizer.eos_token and save it"
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def model(self, vocabulary: int) -> nn.Module:
        """A fresh model with float32 weights on the CPU, in evaluation mode as `from_pretrained` leaves it.

        Raises
        ------
        ValueError
            If weights are missing (`transformers` would fill them at random), the logits are narrower than
            `vocabulary`, or a position sees later tokens.
        """
        model, found = self._read(AutoModelForCausalLM, "model", dtype=torch.float32, output_loading_info=True)
        if missing := sorted(found["missing_keys"]):
            raise ValueError(
                f"{self.side}: the weights of {self.name!r} lack {len(missing)} tensors of its configuration "
                f"(first: {missing[0]}), which would stay random: save the whole model with save_pretrained"
            )
        self._check_causal(model, vocabulary)
        return model

    @torch.no_grad()
    def _check_causal(self, model: nn.Module, vocabulary: int) -> None:
        tokens = torch.arange(4)[None] % vocabulary
        changed = tokens.clone()
        changed[0, -1] = vocabulary - 1
        before, after = models.logits(model, tokens), models.logits(model, changed)
        if before.shape[-1] < vocabulary:
            raise ValueError(too_narrow(self.side, self.name, before.shape[-1], vocabulary))
        # 1e-4: float32 rounding, where kernels group rows by content, is a hundred times smaller
        if (before - after)[:, :-1].abs().max() > 1e-4 * before.abs().max():
            raise ValueError(
                f"{self.side}: {self.name!r} is not causal: the logits of a position change with a later token; "
                "give a causal (decoder-only) language model"
            )

    def digest(self) -> str:
        """The Hub's commit, or the sha256 over names and contents of the folder's weights and configuration files."""
        if self.commit is not None:
            return self.commit
        paths = sorted(path for path in Path(self.name).iterdir() if path.suffix in _HASHED and path.is_file())
        return store.digest([[path.name, store.file_digest(path)] for path in paths])

    def _read(self, loader: Any, what: str, **options: Any) -> Any:
        try:
            with _quiet():
                return loader.from_pretrained(self.name, revision=self.commit or "main", **options)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(f"{self.side}: the {what} of {self.name!r} cannot be read: {_first(error)}") from error


def too_narrow(side: str, name: str, width: int, vocabulary: int) -> str:
    """Message for logits that do not cover the tokenizer."""
    return (
        f"{side}: {name!r} has {width} logits, fewer than the {vocabulary} tokens of the tokenizer: "
        "this tokenizer was not made for it, or call model.resize_token_embeddings(len(tokenizer)) and train it"
    )


def is_path(name: str) -> bool:
    """Whether a name can only be a path: the Hub's are ``name`` or ``owner/name``."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name


@contextmanager
def _quiet() -> Iterator[None]:
    """No bar for every file that is loaded; those of the Hub's downloads stay as they were."""
    shown, downloads = logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    logging.disable_progress_bar()
    if downloads:
        hub.enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
            if not downloads:
                hub.disable_progress_bars()


def _commit(side: str, name: str) -> str:
    tried = f"{side}: {name!r} was tried as a folder (there is none)"
    if is_path(name):
        raise ValueError(f"{tried} and is no name of the Hugging Face Hub: give a folder written by save_pretrained")
    try:
        return _snapshot(hf_hub_download(name, "config.json", local_files_only=True))
    except (OSError, ValueError):
        pass  # not in the cache: ask the Hub
    try:
        return _snapshot(hf_hub_download(name, "config.json"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{tried} and as a name of the Hugging Face Hub ({_first(error)}): give a folder written by "
            f"save_pretrained, or, on a machine with network access, fetch it once with 'hf download {name}'"
        ) from error


def _snapshot(config: str) -> str:
    return Path(config).parent.name  # the cache is laid out as snapshots/<commit>/<file>


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
