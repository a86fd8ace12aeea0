"""Whether a model's vocabulary has the characters of Chinese, which English-only models do not read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pmlm_env.weights.bundled import CHINESE_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The characters of everyday Chinese; rarer ones say little about a vocabulary.
_HAN = re.compile("[\u4e00-\u9fff]")

#: Chinese characters to see before judging.
_ENOUGH = 50
#: Highest share of Chinese characters that the vocabulary may lack, and highest mean number of pieces of any character.
#: On simulated letters, minilm lacks 86 %; a character is 0.8 pieces of qwen2.5-coder-0.5b and 1.8 of smollm2-135m.
_MOST_UNKNOWN, _MOST_PIECES = 0.1, 1.4


class ChineseCheck:
    """Refuses a model that does not know Chinese, once some Chinese text has been given to it.

    A BERT of English (``minilm``, ``bert-base-uncased``) turns most Chinese characters into one and the same unknown
    piece, and a byte-level vocabulary of English (``roberta-large``) into bytes that it has hardly seen in this order:
    scores and embeddings are still numbers, but not about the text.

    Args:
        tokenizer: The model's tokenizer.
        role: What the model is for: ``scorer`` or ``encoder``, which is also the name of its option.
        model: The model's name.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, role: str, model: str) -> None:
        """Start with no text."""
        self._unknown, self._role, self._model = tokenizer.unk_token_id, role, model
        self._n_han = self._n_characters = self._n_pieces = self._n_unknown = 0

    def add(self, text: str, pieces: list[int]) -> None:
        """Take a text and its pieces into account, if most of its characters are Chinese.

        Raises:
            ValueError: The texts so far show that the model does not know Chinese; the message says what to use.
        """
        n = len(_HAN.findall(text))
        if 2 * n < len(text):
            return
        self._n_han += n
        self._n_characters += len(text)
        self._n_pieces += len(pieces)
        self._n_unknown += pieces.count(self._unknown) if self._unknown is not None else 0
        if self._n_han < _ENOUGH:
            return
        unknown, per_character = self._n_unknown / self._n_han, self._n_pieces / self._n_characters
        if unknown > _MOST_UNKNOWN or per_character > _MOST_PIECES:
            found = (
                f"{unknown:.0%} of the text's Chinese characters are not in its vocabulary"
                if unknown > _MOST_UNKNOWN
                else f"it breaks a character into {per_character:.1f} pieces"
            )
            raise ValueError(
                f"the {self._role} {self._model} does not know Chinese ({found}): use --{self._role} bert-base-chinese "
                f"from the hub, or --{self._role} {CHINESE_MODEL}, which needs no hub"
            )
