"""Encoding prompts and decoding replies with a model's chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from pmlm_env.llm.base import LLMError
from pmlm_env.llm.thoughts import without_thoughts

#: Token ids.
Tokens = list[int]

#: The date that templates get instead of today's: the fallback of Llama 3's template.
_FIXED_DATE = date(2024, 7, 26)
_STRFTIME = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")

#: Pattern of tokens that mark turns, thoughts and so on, whether they are special tokens or not.
_BRACKETED = re.compile(r"[<\[\u25c1\uff1c].+[>\]\u25b7\uff1e]")

#: Replaces a text in a rendered template; occurs in no template and no vocabulary.
_PLACEHOLDER = "pmlmstandin"


class ChatTemplate:
    """The chat template of a model in this process.

    Args:
        tokenizer: The model's tokenizer.
        name: Name of the model, for messages.
        kwargs: Further arguments of the template, such as ``{"enable_thinking": False}``. A template that uses the
            current date gets a fixed one, so that replies do not depend on it.

    Raises:
        LLMError: The tokenizer has no chat template, or the template cannot be rendered, or does not use an argument.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, kwargs: Mapping[str, Any]) -> None:
        """Render the template once, to check it."""
        self._tokenizer, self._name, self._kwargs = tokenizer, name, dict(kwargs)
        if not tokenizer.chat_template:
            raise LLMError(f"{name} has no chat template: choose an instruction-tuned model")
        self._template = _STRFTIME.sub(lambda call: repr(_FIXED_DATE.strftime(call[2])), tokenizer.get_chat_template())
        for argument in kwargs:
            if not re.search(rf"\b{re.escape(argument)}\b", self._template):
                raise LLMError(f"the chat template of {name} does not use {argument!r}: leave it out")
        before, has_prompt, after = self._render_prompt(_PLACEHOLDER).partition(_PLACEHOLDER)
        if not has_prompt:
            raise LLMError(f"the chat template of {name} omits the prompt: choose another model")
        self._template_parts = before, after

    def encode(self, prompt: str) -> Tokens:
        """Return the tokens of a conversation with ``prompt`` as the user's turn.

        Special tokens and other marks in the prompt are encoded as plain text, so that a prompt cannot end its turn.
        """
        text, (before, after) = self._render_prompt(prompt), self._template_parts
        tokens, (begin, end) = self._encode_with_marks(text), self._template_part_tokens
        if self._n_marks(tokens) <= self._n_marks(begin) + self._n_marks(end):
            return tokens
        if not (text.startswith(before) and text.endswith(after)):
            raise LLMError(
                f"a prompt contains a special token of {self._name}, whose chat template changes with the prompt, so "
                "that the token cannot be encoded as text: remove the special token from the prompt"
            )
        inside = text[len(before) : len(text) - len(after)]
        # split_special_tokens does not split other marks, so they are split after their first character.
        marks = re.finditer("|".join(map(re.escape, self._marks)), inside)
        cuts = [0, *(mark.start() + 1 for mark in marks), len(inside)]
        pieces = [
            self._tokenizer.encode(inside[start:stop], add_special_tokens=False, split_special_tokens=True)
            for start, stop in pairwise(cuts)
        ]
        return [*begin, *chain.from_iterable(pieces), *end]

    def encode_reply(self, reply: str) -> Tokens:
        """Return the tokens of a reply as the model should write it, with the token that ends its turn.

        Special tokens in the reply are encoded as plain text.
        """
        return [*self._tokenizer.encode(reply, add_special_tokens=False, split_special_tokens=True), *self.ends[-1:]]

    def decode(self, reply: Sequence[int]) -> str | None:
        """Return the reply as text, without thoughts and special tokens; None if there are only thoughts.

        Args:
            reply: The tokens of the reply, without the one that ended it.
        """
        raw = self._opening_of_thoughts + self._tokenizer.decode(reply, skip_special_tokens=False)
        answer = without_thoughts(raw)
        if answer == raw.strip():
            return self._tokenizer.decode(reply, skip_special_tokens=True).strip()
        for token in self._special:
            answer = (answer or "").replace(token, "")
        return (answer or "").strip() or None

    @cached_property
    def ends(self) -> Tokens:
        """The tokens that end the model's turn: the tokenizer's, and the mark after a reply in the template.

        If there is no such mark, it is the mark that starts the next turn.
        """
        turns = [("user", "?"), ("assistant", _PLACEHOLDER), ("user", "?")]
        for n in (2, 3):
            after = self._render(turns[:n], add_generation_prompt=False).rpartition(_PLACEHOLDER)[2]
            texts = {token: self._tokenizer.decode([token]) for token in self._encode_with_marks(after)}
            visible = [token for token, text in texts.items() if text.strip()]
            if visible and texts[visible[0]] in self._marks:
                return [token for token in (self._tokenizer.eos_token_id, visible[0]) if token is not None]
        return [self._tokenizer.eos_token_id] if self._tokenizer.eos_token_id is not None else []

    @cached_property
    def _template_part_tokens(self) -> tuple[Tokens, Tokens]:
        before, after = self._template_parts
        return self._encode_with_marks(before), self._encode_with_marks(after)

    def _encode_with_marks(self, text: str) -> Tokens:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _n_marks(self, tokens: Tokens) -> int:
        return sum(token in self._mark_ids for token in tokens)

    @cached_property
    def _opening_of_thoughts(self) -> str:
        """The end of the rendered template, if it opens the model's thoughts; otherwise ""."""
        return self._template_parts[1] if without_thoughts(self._template_parts[1]) is None else ""

    @cached_property
    def _marks(self) -> dict[str, int]:
        """The ids of special tokens and of other tokens in brackets, by text."""
        added = {str(token): number for number, token in self._tokenizer.added_tokens_decoder.items()}
        bracketed = {text: number for text, number in added.items() if _BRACKETED.fullmatch(text)}
        return {**bracketed, **{text: self._tokenizer.convert_tokens_to_ids(text) for text in self._special}}

    @cached_property
    def _mark_ids(self) -> frozenset[int]:
        return frozenset(self._marks.values())

    @cached_property
    def _special(self) -> frozenset[str]:
        added = self._tokenizer.added_tokens_decoder.values()
        return frozenset(self._tokenizer.all_special_tokens) | {str(token) for token in added if token.special}

    def _render_prompt(self, prompt: str) -> str:
        return self._render([("user", prompt)], add_generation_prompt=True)

    def _render(self, turns: Sequence[tuple[str, str]], *, add_generation_prompt: bool) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages,
                    chat_template=self._template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **self._kwargs,
                )
            )
        except Exception as error:  # a template is a program and may raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise LLMError(f"the chat template of {self._name} cannot be rendered: {reason}") from None


def only_thoughts_message(name: str, n_tokens: int) -> str:
    """Return the error message for a model that wrote only thoughts."""
    return (
        f"{name} wrote {n_tokens} tokens of reasoning and no reply: turn reasoning off, if its chat template allows "
        "that (--chat-template-kwargs '{\"enable_thinking\": false}'), or raise --max-new-tokens"
    )
