"""WordPolicy: the masked categorical policy over words of Eq. 7."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


@dataclass(frozen=True)
class PolicyConfig:
    """The policy's shape.

    Attributes:
        embedding_size: Length of a word embedding (the encoder's hidden size).
        patient_size: Length of the patient vector.
        hidden: Width of the two hidden layers (256 in the paper).
        dropout: After each hidden layer (0.4 in the paper).
        normalize: Whether each of f's three inputs is first brought to zero mean and unit variance (the paper does not
            say so). Otherwise the patient vector, some five times as long as an embedding, drowns the words.
    """

    embedding_size: int
    patient_size: int = 128
    hidden: int = 256
    dropout: float = 0.0
    normalize: bool = True


class WordPolicy(nn.Module):
    """pi(e | s) = softmax(f(e || mean(E) || x_hat)), f a 3-layer MLP with one output a word (Eqs. 7-8).

    The first layer is linear, so f's part for the context (the mean and the patient) is computed once a prompt and
    added to each word's part: the same function as on the concatenation, for a fraction of the work.

    Args:
        config: The policy's shape.
    """

    def __init__(self, config: PolicyConfig) -> None:
        """Make a policy that is close to uniform over the legal words."""
        super().__init__()
        self.config = config
        self.word = nn.Linear(config.embedding_size, config.hidden)
        self.context = nn.Linear(config.embedding_size + config.patient_size, config.hidden, bias=False)
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

    def forward(self, observation: Mapping[str, torch.Tensor]) -> MaskedCategorical:
        """Return the distribution over slots.

        Args:
            observation: As for ``scores``, and ``action_mask`` (B, W), nonzero where a deletion is legal.
        """
        return MaskedCategorical(self.scores(observation), observation["action_mask"] != 0)

    def scores(self, observation: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return a number for each slot before any mask, (B, W): a logit, or what else f is trained to be.

        Args:
            observation: ``embeddings`` (B, W, H), zeros where no word is left; ``patient`` (B, P).
        """
        embeddings = observation["embeddings"]
        left = embeddings.any(dim=-1)
        mean = embeddings.sum(dim=1) / left.sum(dim=1, keepdim=True).clamp(min=1)
        patient = observation["patient"]
        if self.config.normalize:
            embeddings, mean, patient = (nn.functional.layer_norm(x, x.shape[-1:]) for x in (embeddings, mean, patient))
        context = self.context(torch.cat([mean, patient], dim=-1))
        return self.body(self.word(embeddings) + context[:, None, :]).squeeze(-1)

    def save(self, folder: str | Path) -> None:
        """Write ``policy.safetensors`` and ``policy.json`` into ``folder``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()},
                  folder / "policy.safetensors")  # fmt: skip
        (folder / "policy.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> WordPolicy:
        """Read what ``save`` wrote.

        Raises:
            ValueError: A file is missing.
        """
        settings, weights = Path(folder) / "policy.json", Path(folder) / "policy.safetensors"
        for path in (settings, weights):
            if not path.is_file():
                raise ValueError(f"{path} is missing: {folder} is not a checkpoint")
        policy = cls(PolicyConfig(**json.loads(settings.read_text(encoding="utf-8"))))
        policy.load_state_dict(load_file(weights))
        return policy.to(device)


class MaskedCategorical:
    """A categorical distribution over the legal slots of each prompt.

    Args:
        scores: Unnormalised log-probabilities, (B, W), any float type.
        legal: Which slots may be drawn, bool (B, W).

    Raises:
        ValueError: A prompt has no legal slot; a distribution over nothing would be uniform over illegal ones.
    """

    def __init__(self, scores: torch.Tensor, legal: torch.Tensor) -> None:
        """Mask and normalise, in float32."""
        if not bool(legal.any(dim=-1).all()):
            rows = (~legal.any(dim=-1)).nonzero().flatten().tolist()
            raise ValueError(f"prompts {rows} have no word that may be deleted")
        scores = scores.float()
        self.legal = legal
        self.log_probs = scores.masked_fill(~legal, torch.finfo(scores.dtype).min).log_softmax(dim=-1)

    @property
    def probs(self) -> torch.Tensor:
        """Probabilities, (B, W); exactly 0 for illegal slots."""
        return self.log_probs.exp().masked_fill(~self.legal, 0.0)

    def sample(self, generator: torch.Generator) -> torch.Tensor:
        """Draw a slot for each prompt, int64 (B,)."""
        return torch.multinomial(self.probs.detach(), 1, generator=generator).squeeze(-1)

    def mode(self) -> torch.Tensor:
        """Return the most probable slot of each prompt, int64 (B,)."""
        return self.probs.argmax(dim=-1)

    def log_prob(self, slots: torch.Tensor) -> torch.Tensor:
        """Log-probability of ``slots`` (B,), shape (B,)."""
        return self.log_probs.gather(-1, slots[:, None]).squeeze(-1)

    def entropy(self) -> torch.Tensor:
        """Entropy in nats, shape (B,); illegal slots add nothing, nor a NaN to its gradient."""
        return -(self.probs * torch.where(self.legal, self.log_probs, 0.0)).sum(dim=-1)
