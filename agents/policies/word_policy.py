"""WordPolicy: the masked categorical policy over words (Eq. 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from agents.policies.config import Distribution
from agents.policies.distributions import MaskedCategorical, MaskedSparsemax
from agents.policies.dropout import RowDropout
from agents.policies.lexicon import Lexicon
from agents.policies.patient_network import VECTOR_SIZE, PatientNetwork
from pmlm_env.core.task import PatientForm


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes and kind of a policy.

    Attributes:
        embedding_size: Length of a word embedding (the encoder's hidden size).
        patient_size: Length of the patient vector.
        hidden: Width of the two hidden layers (256 in the paper); 0 = no network, only the lexicon's weights.
        dropout: Dropout rate after each hidden layer (0.4 in the paper).
        normalize: Whether each of f's three inputs is normalized to zero mean and unit variance (not mentioned in the
            paper). On PMLMLite-v0 every network learns much more slowly with it: see docs/learning.md.
        patient: Whether f sees the patient vector; False only for ablations.
        positions: Number of slots that f can tell apart, each by a learned term in the first layer; 0 = none, for
            contextual embeddings such as BERT's.
        distribution: ``softmax``, or ``sparsemax`` (Martins and Astudillo 2016), which gives most words a probability
            of 0, as in PIN (Choi et al. 2024).
        checkup_size: Length of a patient's padded check-ups, of which a part of the policy makes the patient vector; 0
            = the policy is given patient vectors.
    """

    embedding_size: int
    patient_size: int = 128
    hidden: int = 256
    dropout: float = 0.0
    normalize: bool = True
    patient: bool = True
    positions: int = 0
    distribution: Distribution = "softmax"
    checkup_size: int = 0

    @property
    def patient_inputs(self) -> int:
        """Length of what the policy is given of the patient."""
        return self.checkup_size or self.patient_size


class WordPolicy(nn.Module):
    """pi(e | s) = softmax(f(e || mean(E) || x_hat)), where f is a 3-layer MLP with one output per word (Eqs. 7-8).

    The first layer is linear, so the contribution of the context (the mean and the patient) is computed once per prompt
    and added to each word's contribution. This is the same function as on the concatenation, at a fraction of the cost.

    With a lexicon, each word's logit is f's output plus a weight for each of the word's forms in the lexicon. f must
    learn what words have in common from a few hundred rewards; a word that is in every prompt has its own weight, which
    learns much faster. Without f (``hidden`` 0) the policy sees neither embeddings nor patient, and needs no encoder.

    Args:
        config: Sizes and kind.
        lexicon: Assigns numbers to words; None = f alone, as in the paper.

    Raises:
        ValueError: There is neither a network nor a lexicon.
    """

    def __init__(self, config: PolicyConfig, lexicon: Lexicon | None = None) -> None:
        """Initialize the policy to be nearly uniform over the legal words."""
        super().__init__()
        if not config.hidden and lexicon is None:
            raise ValueError("a policy needs a network (hidden above 0), a lexicon, or both")
        self.config, self.lexicon = config, lexicon
        self.table = None if lexicon is None else nn.Embedding(len(lexicon), 1, 0, dtype=torch.float32)
        if self.table is not None:
            nn.init.zeros_(self.table.weight)
        if not config.hidden:
            return
        self.word = nn.Linear(config.embedding_size, config.hidden)
        vector_size = VECTOR_SIZE if config.checkup_size else config.patient_size
        self.context = nn.Linear(config.embedding_size + vector_size, config.hidden, bias=False)
        self.positions = nn.Parameter(torch.zeros(config.positions, config.hidden)) if config.positions else None
        last = nn.Linear(config.hidden, 1)
        nn.init.orthogonal_(last.weight, gain=0.01)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(
            nn.ReLU(),
            RowDropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            RowDropout(config.dropout),
            last,
        )
        self.patient_network = PatientNetwork(config.checkup_size, config.dropout) if config.checkup_size else None
        self.float()  # as embeddings are, whatever PyTorch's default is

    @property
    def observation(self) -> Literal["embeddings", "index"]:
        """The form of observation that the policy needs, apart from the numbers of the words."""
        return "embeddings" if self.config.hidden else "index"

    @property
    def patient_form(self) -> PatientForm:
        """What the policy needs of the patient."""
        return "checkups" if self.config.checkup_size else "vector"

    def forward(self, observation: Mapping[str, torch.Tensor]) -> MaskedCategorical:
        """Return the distribution over slots.

        Args:
            observation: The keys that ``scores`` needs, and ``action_mask`` (B, W), nonzero where a deletion is legal.
        """
        return self.distribution(self.scores(observation), observation)

    def distribution(self, scores: torch.Tensor, observation: Mapping[str, torch.Tensor]) -> MaskedCategorical:
        """Return the distribution that ``scores`` define over the observation's legal slots."""
        kind = MaskedCategorical if self.config.distribution == "softmax" else MaskedSparsemax
        return kind(scores, observation["action_mask"] != 0)

    def scores(self, observation: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the unmasked score of each slot, (B, W): a logit, or a Q-value if f is trained by Q-learning.

        Args:
            observation: ``embeddings`` (B, W, H), zeros where no word is left; ``patient`` (B, P), a vector or padded
                check-ups; with a lexicon, also its numbers of the words, ``words`` (B, W, N_FORMS).

        Raises:
            ValueError: The sizes of embeddings, patient vectors or check-ups differ from those in training, or there
                are more slots than the policy has positions.
        """
        known = None if self.table is None else self.table(observation["words"]).sum(dim=(-2, -1))
        if known is not None and not self.config.hidden:
            return known
        embeddings = observation["embeddings"]
        check_sizes(embeddings, observation["patient"], self.config.embedding_size, self.config.patient_inputs)
        left = embeddings.any(dim=-1)
        mean = embeddings.sum(dim=1) / left.sum(dim=1, keepdim=True).clamp(min=1)
        patient = observation["patient"] if self.config.patient else torch.zeros_like(observation["patient"])
        if self.patient_network is not None:
            patient = self.patient_network(patient)
        if self.config.normalize:
            embeddings, mean, patient = (nn.functional.layer_norm(x, x.shape[-1:]) for x in (embeddings, mean, patient))
        context = self.context(torch.cat([mean, patient], dim=-1))
        hidden = self.word(embeddings) + context[:, None, :]
        if self.positions is not None:
            hidden = hidden + of_slots(self.positions, hidden.shape[1])
        scores = self.body(hidden).squeeze(-1)
        return scores if known is None else scores + known


def check_sizes(embeddings: torch.Tensor, patient: torch.Tensor, embedding_size: int, patient_size: int) -> None:
    """Check that embeddings and patient vectors have the sizes that a network expects.

    Raises:
        ValueError: A size differs.
    """
    for kind, values, size in (("embeddings", embeddings, embedding_size), ("patient", patient, patient_size)):
        if values.shape[-1] != size:
            raise ValueError(f"{kind} of {values.shape[-1]} numbers, but of {size} in training")


def of_slots(positions: torch.Tensor, n_slots: int) -> torch.Tensor:
    """Return the first ``n_slots`` rows of a network's learned position terms.

    Raises:
        ValueError: There were fewer slots in training.
    """
    if n_slots > len(positions):
        raise ValueError(
            f"the prompts have {n_slots} slots, {len(positions)} in training: an agent with positions plays no longer "
            "prompts than that"
        )
    return positions[:n_slots]
