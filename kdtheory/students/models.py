"""Tiny GPTs from scratch, through `transformers` configurations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdtheory.students.profiles import Profile, Shape


def build(profile: Profile, shape: Shape, *, seed: int) -> nn.Module:
    """A causal language model with random weights.

    Parameters
    ----------
    profile : Profile
        Architecture, vocabulary and block length.
    shape : Shape
        Width, layers, heads.
    seed : int
        Of the initial weights; the global generator is left as it was.

    Returns
    -------
    nn.Module
        A `transformers` model; `logits` runs it. No dropout: a step is a function of weights and batch alone.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if shape.width % shape.heads:
        raise ValueError(f"width = {shape.width} is not a multiple of heads = {shape.heads}")
    common: dict[str, Any] = {"vocab_size": profile.vocabulary, "use_cache": False, "attn_implementation": "sdpa"}
    common |= {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if profile.architecture == "gpt2":
            dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
            size = {"n_embd": shape.width, "n_layer": shape.layers, "n_head": shape.heads}
            model = GPT2LMHeadModel(GPT2Config(n_positions=profile.length, **size, **dropout, **common))
            return _with_unit_embeddings(model)
        size = {
            "hidden_size": shape.width,
            "intermediate_size": max(8, 8 * shape.width // 3 // 8 * 8),  # as many weights as 4 · width without a gate
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
        }
        return _with_unit_embeddings(
            LlamaForCausalLM(LlamaConfig(max_position_embeddings=profile.length, **size, **common))
        )


def _with_unit_embeddings(model: nn.Module) -> nn.Module:
    """Input embeddings of variance 1: with the configurations' .02 small models need many times the steps.

    Measured on the standard library (width 128, 200 steps, rate 3e-3): validation loss 3.38 instead of 4.32 nats.
    """
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_()
    return model


class Body(nn.Module):
    """A causal language model that stops before its head, so that a loss can take the head in chunks.

    Attributes
    ----------
    net : nn.Module
        A `transformers` model.
    vocabulary : int
        V: its logits are cut to these tokens; what lies beyond is padding.
    plain_head : bool
        Whether logits are hidden states times output embeddings, and nothing else (some models scale or cap them).
        If not, `forward` gives logits (B, T, V) instead of hidden states (B, T, d).
    """

    def __init__(self, net: nn.Module, vocabulary: int) -> None:
        super().__init__()
        self.net, self.vocabulary = net, vocabulary
        self.plain_head = self._has_plain_head()

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states or logits for token blocks (B, T)."""
        if self.plain_head:
            return self.net.base_model(input_ids=tokens, use_cache=False)[0]
        return logits(self.net, tokens)[..., : self.vocabulary]

    def logits(self, tokens: Tensor) -> Tensor:
        """Next-token logits (B, T, V) for token blocks (B, T)."""
        return logits(self.net, tokens)[..., : self.vocabulary]

    def head(self) -> tuple[Tensor, Tensor | None]:
        """Output embeddings (V, d) and their bias (V,), if there is one."""
        layer = self.net.get_output_embeddings()
        bias = getattr(layer, "bias", None)
        return layer.weight[: self.vocabulary], None if bias is None else bias[: self.vocabulary]

    @torch.no_grad()
    def _has_plain_head(self) -> bool:
        if self.net.get_output_embeddings() is None:
            return False
        was_training = self.net.training
        tokens = torch.arange(4, device=next(self.net.parameters()).device)[None] % self.vocabulary
        self.net.eval()
        hidden, (weight, bias) = self.net.base_model(input_ids=tokens, use_cache=False)[0], self.head()
        # states a thousand times as large: a cap is seen even where this model's logits are far below it
        enlarge = self.net.get_output_embeddings().register_forward_pre_hook(lambda _, states: (1e3 * states[0],))
        try:
            whole = self.logits(tokens)
        finally:
            enlarge.remove()
            self.net.train(was_training)
        if hidden.shape[-1] != weight.shape[1]:
            return False
        product = torch.nn.functional.linear(1e3 * hidden, weight, bias)
        # 1e-3: float32 or bfloat16 rounding of one product; a cap or a scale changes far more
        return bool((product - whole).abs().max() <= 1e-3 * whole.abs().max())


def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    """Next-token logits of a `transformers` model for token blocks (B, T), padding columns included."""
    return model(input_ids=tokens, use_cache=False).logits


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters; tied weights count once."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def embeddings(state: dict[str, Tensor]) -> Tensor:
    """Output embeddings (V, width) out of a state dict, float64: tokens with equal rows get equal logits everywhere."""
    if "lm_head.weight" not in state:
        raise ValueError("the state dict holds no output embeddings (lm_head.weight) of a causal language model")
    return state["lm_head.weight"].detach().double().cpu()
