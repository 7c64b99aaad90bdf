"""Real models and tokenizers of a few thousand weights, saved in the real formats."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|endoftext|>"
LINES = ["the cat sat on the mat", "a dog ran to the cat", "Write a response. ### Instruction: ### Response:"]
POSITIONS = 48
RESPONSES = ("sat on the mat", "a dog ran")


def tokenizer(*, special: tuple[str, ...] = (END,), lines: list[str] = LINES, **tokens: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the lines; `tokens` are eos_token, bos_token, pad_token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **(tokens or {"eos_token": END}))


def gpt2(width: int = 300, **options: int) -> GPT2LMHeadModel:
    """A teacher with `width` logits."""
    torch.manual_seed(1)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=width, n_embd=16, n_layer=1, n_head=2, n_positions=64, **ends, **options)
    )
    return spread(model)


def llama(width: int = 320) -> LlamaForCausalLM:
    """A student with `width` logits and fewer positions."""
    torch.manual_seed(2)
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=width, max_position_embeddings=POSITIONS, **shape, **ends))
    return spread(model)


def spread(model):
    """Weights of variance 1/2, so that predictions differ from token to token."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.7)
    return model.eval()


def save(folder: Path, model, words) -> str:
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def instructions(path: Path, count: int = 120) -> str:
    """Short prompts, each another one, and one of two responses."""
    rows = ({"prompt": f"{n} the cat ", "completion": RESPONSES[n % 2]} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
