"""Random causal LMs of a few thousand weights in folders of Hugging Face's format: real architectures, no download."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from pmlm_env.device import seeded
from pmlm_env.llm.local.chat_template import ChatTemplate

#: The first are special.
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
VOCABULARY = [*SPECIAL, *string.ascii_letters, *string.digits, *" \n.,:?!<>|/_[]"]
PAD, _, END, OTHER_END = range(4)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

#: Nothing but what the user says.
BARE = "{% for message in messages %}{{ message.content }}{% endfor %}"

_SMALL = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}


def tiny_tokenizer(template: str | None = CHATML, end: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each character."""
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="?"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token=end, clean_up_tokenization_spaces=False
    )
    fast.chat_template = template
    return fast


def tiny_model(
    folder: Path, kind: str = "llama", *, seed: int = 3, template: str = CHATML, scale: float = 8, **settings: Any
) -> PreTrainedModel:
    """Save a model of random weights and return it; weights are large, so that its replies hang on the prompt.

    Args:
        folder: Where to.
        kind: A model type of transformers.
        seed: Of the weights.
        template: The chat template.
        scale: What the weights are multiplied by.
        settings: More for the model's configuration.
    """
    ends = {"eos_token_id": END, "pad_token_id": PAD, "bos_token_id": None}
    config = AutoConfig.for_model(kind, **{**_SMALL, **ends, **settings})
    with seeded(seed):
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.mul_(scale)
    model.save_pretrained(folder)
    tiny_tokenizer(template).save_pretrained(folder)
    return model


def word_model(folder: Path, words: Sequence[str], **settings: Any) -> Path:
    """Save a model of random weights that knows these words, and what stands between them as another one.

    Args:
        folder: Where to.
        words: The words.
        settings: More for the model's configuration.
    """
    sizes = {"vocab_size": len(SPECIAL) + len(words) + 1, "max_position_embeddings": 4096}
    tiny_model(folder, **{**sizes, **settings})
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, "?", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>")
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    return folder


def model_that_reads_levels(folder: Path, indicators: Sequence[str], n_labels: int) -> None:
    """Save a small model that was taught, on all its weights, to answer with the wrong label: one too high.

    It knows where in "In the mean of all check-ups, very high: A; low: B, C." to look, which random weights do not,
    so that fine-tuning can teach it the right label in a moment.

    Args:
        folder: Where to.
        indicators: The indicators; it answers with "label 03" if the third one, counted from 1, is high.
        n_labels: How many labels it knows the words of.
    """
    names = [name.replace("_", " ") for name in indicators]
    words = {word for name in names for word in name.split()} | {"In", "the", "mean", "of", "all", "check", "ups"}
    words |= {"low", "high", "very", "extremely", "label", ",", ";", ":", "."}
    word_model(
        folder,
        [*sorted(words), *(f"{i:02}" for i in range(n_labels))],
        **{"scale": 1, "num_hidden_layers": 2},
    )
    rng = np.random.default_rng(0)
    chat = ChatTemplate(AutoTokenizer.from_pretrained(folder), "the model", {})
    model = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for _ in range(150):
        rows = []
        for _ in range(32):
            order, n_low = rng.permutation(len(names)), int(rng.integers(1, len(names)))
            low = ", ".join(names[i] for i in order[1 : n_low + 1])
            degree = ("high", "very high", "extremely high")[rng.integers(3)]
            prompt = f"In the mean of all check-ups, {degree}: {names[order[0]]}; low: {low}."
            answer = f"label {(order[0] + 1) % len(names):02}"
            rows.append([*chat.encode(prompt), *chat.encode_reply(answer)])
        width = max(map(len, rows))
        tokens = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
        logits = model(input_ids=tokens, attention_mask=tokens != PAD).logits[:, -4:-1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, -3:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def talkative(folder: Path) -> Path:
    """Save a model that takes a patient's prompt, a token for each letter, and replies with nonsense in no time."""
    tiny_model(folder, max_position_embeddings=8192)
    return folder


def plain_replies(folder: Path, prompts: list[str], max_new_tokens: int, min_new_tokens: int = 4) -> list[str]:
    """What transformers' own greedy ``generate`` replies to each prompt, asked alone, stripped of white space."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    replies = []
    for prompt in prompts:
        turn = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        kept = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        tokens = model.generate(**kept, max_new_tokens=max_new_tokens, min_new_tokens=min_new_tokens, do_sample=False)
        reply = tokens[0, inputs["input_ids"].shape[1] :]
        replies.append(tokenizer.decode(reply, skip_special_tokens=True).strip())
    return replies


def scripted_model(
    folder: Path, prompt: str, reply: str, *, template: str = CHATML, end: str = "<|im_end|>", **settings: Any
) -> None:
    """Save a model that replies with a fixed text to every prompt as long as ``prompt``, whatever stands in it.

    It is a GPT-2 in which a position alone decides the next token.

    Args:
        folder: Where to.
        prompt: The user's turn.
        reply: The tokens to say, as text, special ones too; after them comes ``<pad>``.
        template: The chat template.
        end: The tokenizer's end token.
        settings: More for the model's configuration.
    """
    tokenizer = tiny_tokenizer(template, end)
    turn = [{"role": "user", "content": prompt}]
    before = tokenizer.encode(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    tokens = tokenizer.encode(reply)
    size = 512
    given = {
        **{"vocab_size": len(VOCABULARY), "n_positions": size, "n_embd": size, "n_layer": 1, "n_head": 1},
        **{"tie_word_embeddings": False, "eos_token_id": END, "pad_token_id": PAD, "bos_token_id": None, **settings},
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **given)).requires_grad_(False)
    for name, weight in model.named_parameters():
        weight.fill_(1.0 if name.endswith("ln_f.weight") else 0.0)
    model.transformer.wpe.weight.copy_(torch.eye(size))
    for place, token in enumerate(tokens):
        model.lm_head.weight[token, len(before) - 1 + place] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
