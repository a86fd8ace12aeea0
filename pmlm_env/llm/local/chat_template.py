"""From a prompt to a model's tokens, and from its tokens to the reply, by the model's own chat template."""

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

#: A vocabulary's tokens, as ids.
Tokens = list[int]

#: What templates take for today: the day that Llama 3's own template falls back on.
_DAY = date(2024, 7, 26)
_STRFTIME = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")

#: How marks of turns, thoughts and the like are written, whether their tokens are special or not.
_BRACKETED = re.compile(r"[<\[\u25c1\uff1c].+[>\]\u25b7\uff1e]")

#: Stands for a text in a rendered template; no template and no vocabulary knows it.
_STAND_IN = "pmlmstandin"


class ChatTemplate:
    """The chat template of a model in this process.

    Args:
        tokenizer: The model's tokenizer.
        name: What errors call the model.
        kwargs: More arguments for the template, such as ``{"enable_thinking": False}``. A template that asks for the
            day is told one that stays, so that replies do not hang on the day on which they are asked for.

    Raises:
        LLMError: The tokenizer has no chat template, or the template cannot be filled, or knows none of an argument.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, kwargs: Mapping[str, Any]) -> None:
        """Fill the template once, to see that it works."""
        self._tokenizer, self._name, self._kwargs = tokenizer, name, dict(kwargs)
        if not tokenizer.chat_template:
            raise LLMError(f"{name} has no chat template: choose an instruction-tuned model")
        self._template = _STRFTIME.sub(lambda call: repr(_DAY.strftime(call[2])), tokenizer.get_chat_template())
        for argument in kwargs:
            if not re.search(rf"\b{re.escape(argument)}\b", self._template):
                raise LLMError(f"the chat template of {name} has no {argument!r}: leave it out")
        before, found, after = self._prompt(_STAND_IN).partition(_STAND_IN)
        if not found:
            raise LLMError(f"the chat template of {name} leaves the prompt out: choose another model")
        self._around = before, after

    def encode(self, prompt: str) -> Tokens:
        """Return the tokens of a conversation that begins with ``prompt`` as the user's turn.

        What looks like a special token or another mark in the prompt is encoded as plain text, so that a prompt
        cannot end its turn.
        """
        text, (before, after) = self._prompt(prompt), self._around
        tokens, (begin, end) = self._plain(text), self._around_tokens
        if self._n_marks(tokens) <= self._n_marks(begin) + self._n_marks(end):
            return tokens
        if not (text.startswith(before) and text.endswith(after)):
            raise LLMError(
                f"a prompt holds a special token of {self._name}, and its chat template changes with the prompt, so "
                "that the two cannot be told apart: take the special token out of the prompt"
            )
        inside = text[len(before) : len(text) - len(after)]
        # Marks that are not special are found even so; cut in two, behind their first character, they are text.
        marks = re.finditer("|".join(map(re.escape, self._marks)), inside)
        cuts = [0, *(mark.start() + 1 for mark in marks), len(inside)]
        pieces = [
            self._tokenizer.encode(inside[start:stop], add_special_tokens=False, split_special_tokens=True)
            for start, stop in pairwise(cuts)
        ]
        return [*begin, *chain.from_iterable(pieces), *end]

    def decode(self, reply: Sequence[int]) -> str | None:
        """Return the reply as text, without thoughts and special tokens; None where it is nothing but thoughts.

        Args:
            reply: Its tokens, without the one that ended it.
        """
        raw = self._opened + self._tokenizer.decode(reply, skip_special_tokens=False)
        answer = without_thoughts(raw)
        if answer == raw.strip():
            return self._tokenizer.decode(reply, skip_special_tokens=True).strip()
        for token in self._special:
            answer = (answer or "").replace(token, "")
        return (answer or "").strip() or None

    @cached_property
    def ends(self) -> Tokens:
        """The tokens that end the model's turn: the tokenizer's, and the mark that the template puts after a reply.

        Where it puts none, that is the mark with which the next turn begins.
        """
        turns = [("user", "?"), ("assistant", _STAND_IN), ("user", "?")]
        for n in (2, 3):
            after = self._filled(turns[:n], add_generation_prompt=False).rpartition(_STAND_IN)[2]
            texts = {token: self._tokenizer.decode([token]) for token in self._plain(after)}
            said = [token for token, text in texts.items() if text.strip()]
            if said and texts[said[0]] in self._marks:
                return [token for token in (self._tokenizer.eos_token_id, said[0]) if token is not None]
        return [self._tokenizer.eos_token_id] if self._tokenizer.eos_token_id is not None else []

    @cached_property
    def _around_tokens(self) -> tuple[Tokens, Tokens]:
        before, after = self._around
        return self._plain(before), self._plain(after)

    def _plain(self, text: str) -> Tokens:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _n_marks(self, tokens: Tokens) -> int:
        return sum(token in self._mark_ids for token in tokens)

    @cached_property
    def _opened(self) -> str:
        """What the template puts before the reply, if it opens the model's thoughts there."""
        return self._around[1] if without_thoughts(self._around[1]) is None else ""

    @cached_property
    def _marks(self) -> dict[str, int]:
        """The special tokens, and others that are written in brackets as marks are, with their ids."""
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

    def _prompt(self, prompt: str) -> str:
        return self._filled([("user", prompt)], add_generation_prompt=True)

    def _filled(self, turns: Sequence[tuple[str, str]], *, add_generation_prompt: bool) -> str:
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
        except Exception as error:  # a template is a program of its author's
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise LLMError(f"the chat template of {self._name} cannot be filled: {why}") from None


def only_thoughts(name: str, n_tokens: int) -> str:
    """Say that a model wrote nothing but thoughts, and what to do."""
    return (
        f"{name} wrote {n_tokens} tokens of thoughts and no reply: switch its thoughts off, where its chat template "
        "can (--chat-template-kwargs '{\"enable_thinking\": false}'), or raise --max-new-tokens"
    )
