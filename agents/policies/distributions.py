"""Distributions over the legal slots of each prompt."""

from __future__ import annotations

import torch


class MaskedCategorical:
    """A categorical distribution over the legal slots of each prompt.

    Args:
        scores: Unnormalized log-probabilities, (B, W), any float type.
        legal: Which slots may be drawn, bool (B, W).

    Raises:
        ValueError: A prompt has no legal slot, a legal slot's score is NaN or plus infinity, or all scores of a
            prompt's legal slots are minus infinity.
    """

    def __init__(self, scores: torch.Tensor, legal: torch.Tensor) -> None:
        """Mask and normalize, in float32."""
        if not bool(legal.any(dim=-1).all()):
            rows = (~legal.any(dim=-1)).nonzero().flatten().tolist()
            raise ValueError(f"prompts {rows} have no word that may be deleted")
        scores = scores.float()
        # A NaN or an infinity would make the softmax return NaNs, and the mode would be the first word. Single scores
        # of minus infinity are fine: they are probabilities of 0.
        below = ~legal | (scores < torch.inf)
        if not bool(below.all() & (legal & scores.isfinite()).any(dim=-1).all()):
            raise ValueError(
                "the policy's scores are not finite: its weights are too large, or learning diverged: train anew, with "
                "a lower learning rate or step"
            )
        self.legal = legal
        self.log_probs = self._log_probs(scores, legal)

    @property
    def probs(self) -> torch.Tensor:
        """Probabilities, (B, W); exactly 0 for illegal slots."""
        return self.log_probs.exp().masked_fill(~self.legal, 0.0)

    def _log_probs(self, scores: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(~legal, torch.finfo(scores.dtype).min).log_softmax(dim=-1)

    def sample(self, generator: torch.Generator, n_rows: int | None = None, own: slice = slice(None)) -> torch.Tensor:
        """Draw a slot for each prompt, int64 (B,): the same as ``torch.multinomial`` draws.

        Of independent exponential times with the probabilities as rates, a slot's is the first with its probability.

        Args:
            generator: Draws the times.
            n_rows: The number of prompts of a batch of which these are a part; by default B. As many are drawn for, so
                that the parts of a batch have the slots that the whole batch would have.
            own: Which of its rows these prompts are.
        """
        probs = self.probs.detach()
        times = probs.new_empty(len(probs) if n_rows is None else n_rows, probs.shape[1]).exponential_(
            generator=generator
        )
        return (probs / times[own]).argmax(dim=-1)

    def mode(self) -> torch.Tensor:
        """Return the most probable slot of each prompt, int64 (B,)."""
        return self.probs.argmax(dim=-1)

    def log_prob(self, slots: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of ``slots`` (B,), shape (B,)."""
        return self.log_probs.gather(-1, slots[:, None]).squeeze(-1)

    def entropy(self) -> torch.Tensor:
        """Return the entropy in nats, shape (B,).

        Illegal slots and those of probability 0 contribute nothing, and no NaN to the gradient.
        """
        counted = self.legal & self.log_probs.isfinite()
        return -(self.probs * torch.where(counted, self.log_probs, 0.0)).sum(dim=-1)


class MaskedSparsemax(MaskedCategorical):
    """A ``MaskedCategorical`` with probabilities from sparsemax: the point of the simplex nearest to the scores.

    A word of probability 0 has the log-probability log(1e-12), without a gradient.
    """

    def _log_probs(self, scores: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
        low = scores.masked_fill(~legal, torch.inf).amin(dim=-1, keepdim=True)
        sorted_scores = torch.where(legal, scores - low, -1e6).sort(dim=-1, descending=True).values
        rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
        sums = sorted_scores.cumsum(dim=-1)
        size = (1 + rank * sorted_scores > sums).sum(dim=-1, keepdim=True)
        threshold = (sums.gather(-1, size - 1) - 1) / size
        probs = torch.where(legal, scores - low - threshold, 0.0).clamp(min=0.0)
        return torch.where(probs > 0, probs.clamp(min=1e-12), 1e-12).log()

    @property
    def probs(self) -> torch.Tensor:
        """Probabilities, (B, W); exactly 0 for illegal slots and for slots to which sparsemax gives 0."""
        probs = self.log_probs.exp()
        return torch.where(self.legal & (probs > 1e-11), probs, 0.0)
