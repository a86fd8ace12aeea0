"""WordPolicy: the masked categorical policy over words of Eq. 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from agents.policies.config import Distribution
from agents.policies.distributions import MaskedCategorical, MaskedSparsemax
from agents.policies.lexicon import Lexicon


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes and kind of a policy.

    Attributes:
        embedding_size: Length of a word embedding (the encoder's hidden size).
        patient_size: Length of the patient vector.
        hidden: Width of the two hidden layers (256 in the paper); 0 = no network, the lexicon's weights alone.
        dropout: Share of units dropped after each hidden layer (0.4 in the paper).
        normalize: Whether each of f's three inputs is first brought to zero mean and unit variance (the paper does not
            say so). On PMLMLite-v0 every network learns much slower with it: see docs/learning.md.
        patient: Whether f sees the patient vector; False only for ablations.
        positions: How many slots f can tell apart, each by a term of its own in the first layer; 0 = none, for
            contextual embeddings, such as BERT's.
        distribution: ``softmax``, or ``sparsemax`` (Martins and Astudillo 2016), which gives most words no probability
            at all, as in PIN (Choi et al. 2024).
    """

    embedding_size: int
    patient_size: int = 128
    hidden: int = 256
    dropout: float = 0.0
    normalize: bool = True
    patient: bool = True
    positions: int = 0
    distribution: Distribution = "softmax"


class WordPolicy(nn.Module):
    """pi(e | s) = softmax(f(e || mean(E) || x_hat)), f a 3-layer MLP with one output a word (Eqs. 7-8).

    The first layer is linear, so its part for the context (the mean and the patient) is computed once for each prompt
    and added to each word's part: the same function as on the concatenation, for a fraction of the work.

    With a lexicon each word's logit is f's plus a weight for each form in which the lexicon knows it. f must learn from
    a few hundred rewards what words have in common; a word that is in every prompt has a weight of its own, which
    learns much faster. Without f (``hidden`` 0) the policy sees neither embeddings nor patient, and needs no encoder.

    Args:
        config: Sizes and kind.
        lexicon: Numbers words; None = f alone, as in the paper.

    Raises:
        ValueError: There is neither a network nor a lexicon.
    """

    def __init__(self, config: PolicyConfig, lexicon: Lexicon | None = None) -> None:
        """Make a policy that is nearly uniform over the legal words."""
        super().__init__()
        if not config.hidden and lexicon is None:
            raise ValueError("a policy needs a network (hidden above 0), a lexicon, or both")
        self.config, self.lexicon = config, lexicon
        self.table = None if lexicon is None else nn.Embedding(len(lexicon), 1, padding_idx=0)
        if self.table is not None:
            nn.init.zeros_(self.table.weight)
        if not config.hidden:
            return
        self.word = nn.Linear(config.embedding_size, config.hidden)
        self.context = nn.Linear(config.embedding_size + config.patient_size, config.hidden, bias=False)
        self.positions = nn.Parameter(torch.zeros(config.positions, config.hidden)) if config.positions else None
        last = nn.Linear(config.hidden, 1)
        nn.init.orthogonal_(last.weight, gain=0.01)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            last,
        )

    @property
    def observation(self) -> Literal["embeddings", "index"]:
        """The form of observation that the policy needs, besides the numbers of the words."""
        return "embeddings" if self.config.hidden else "index"

    def forward(self, observation: Mapping[str, torch.Tensor]) -> MaskedCategorical:
        """Return the distribution over slots.

        Args:
            observation: As for ``scores``, and ``action_mask`` (B, W), nonzero where a deletion is legal.
        """
        return self.distribution(self.scores(observation), observation)

    def distribution(self, scores: torch.Tensor, observation: Mapping[str, torch.Tensor]) -> MaskedCategorical:
        """Return the distribution that ``scores`` make of the observation's legal slots."""
        kind = MaskedCategorical if self.config.distribution == "softmax" else MaskedSparsemax
        return kind(scores, observation["action_mask"] != 0)

    def scores(self, observation: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return a number for each slot before any mask, (B, W): a logit, or a Q-value where f is trained to be one.

        Args:
            observation: ``embeddings`` (B, W, H), zeros where no word is left; ``patient`` (B, P); with a lexicon
                its numbers of the words, ``words`` (B, W, N_FORMS).

        Raises:
            ValueError: Embeddings or patient vectors are longer or shorter than in training, or there are more slots
                than the policy has positions.
        """
        known = None if self.table is None else self.table(observation["words"]).sum(dim=(-2, -1))
        if known is not None and not self.config.hidden:
            return known
        embeddings = observation["embeddings"]
        check_sizes(embeddings, observation["patient"], self.config.embedding_size, self.config.patient_size)
        left = embeddings.any(dim=-1)
        mean = embeddings.sum(dim=1) / left.sum(dim=1, keepdim=True).clamp(min=1)
        patient = observation["patient"] if self.config.patient else torch.zeros_like(observation["patient"])
        if self.config.normalize:
            embeddings, mean, patient = (nn.functional.layer_norm(x, x.shape[-1:]) for x in (embeddings, mean, patient))
        context = self.context(torch.cat([mean, patient], dim=-1))
        hidden = self.word(embeddings) + context[:, None, :]
        if self.positions is not None:
            hidden = hidden + of_slots(self.positions, hidden.shape[1])
        scores = self.body(hidden).squeeze(-1)
        return scores if known is None else scores + known


def check_sizes(embeddings: torch.Tensor, patient: torch.Tensor, embedding_size: int, patient_size: int) -> None:
    """See that embeddings and patient vectors have the sizes that a network is made for.

    Raises:
        ValueError: They are longer or shorter.
    """
    for kind, values, size in (("embeddings", embeddings, embedding_size), ("patient", patient, patient_size)):
        if values.shape[-1] != size:
            raise ValueError(f"{kind} of {values.shape[-1]} numbers, but of {size} in training")


def of_slots(positions: torch.Tensor, n_slots: int) -> torch.Tensor:
    """Return the first ``n_slots`` rows of what a network has learned of each slot.

    Raises:
        ValueError: There were fewer slots in training.
    """
    if n_slots > len(positions):
        raise ValueError(
            f"the prompts have {n_slots} slots, {len(positions)} in training: an agent with positions plays no longer "
            "prompts than that"
        )
    return positions[:n_slots]
