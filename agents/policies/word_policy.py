"""WordPolicy: the masked categorical policy over words of Eq. 7."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from reprlib import repr as shortened
from typing import Literal, get_args

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors.torch import save
from torch import nn

from agents.policies.lexicon import Lexicon
from pmlm_env.io.checked_files import file_in, read_object, read_tensors
from pmlm_env.io.files import make_folder, write
from pmlm_env.weights import resolve

Distribution = Literal["softmax", "sparsemax"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"

#: The least and the most that a policy's whole numbers may be: what somebody else's policy can ask of the memory.
_RANGES = {
    "embedding_size": (1, 8_192),
    "patient_size": (1, 4_096),
    "hidden": (0, 4_096),
    "positions": (0, 16_384),
    "n_edits": (1, 10_000),
}


@dataclass(frozen=True)
class PolicyConfig:
    """The policy's shape.

    Attributes:
        embedding_size: Length of a word embedding (the encoder's hidden size).
        patient_size: Length of the patient vector.
        hidden: Width of the two hidden layers (256 in the paper); 0 = no network, the lexicon's weights alone.
        dropout: After each hidden layer (0.4 in the paper).
        normalize: Whether each of f's three inputs is first brought to zero mean and unit variance (the paper does not
            say so). On PMLMLite-v0 every network learns much slower for it: see docs/learning.md.
        patient: Whether f sees the patient vector; False only for ablations.
        positions: How many slots f can tell apart, each by a part of its own in the first layer; 0 = none, for
            embeddings that know where a word stands, as BERT's do.
        distribution: ``softmax``, or ``sparsemax`` (Martins and Astudillo 2016), which gives most words no probability
            at all, as in PIN (Choi et al. 2024).
        encoder: Whose embeddings f was trained on: a name as ``WordEncoder`` takes it.
        n_edits: Deletions a prompt that it was trained to make.
    """

    embedding_size: int
    patient_size: int = 128
    hidden: int = 256
    dropout: float = 0.0
    normalize: bool = True
    patient: bool = True
    positions: int = 0
    distribution: Distribution = "softmax"
    encoder: str = "minilm"
    n_edits: int = 10

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: One of them is of another type, or out of its range.
        """
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ValueError(f"{name} is {shortened(value)}: use a whole number from {least} to {most:,}")
        for name in ("normalize", "patient"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {shortened(getattr(self, name))}: use true or false")
        is_number = isinstance(self.dropout, int | float) and not isinstance(self.dropout, bool)
        if not is_number or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {shortened(self.dropout)}: use a number from 0 to below 1")
        if self.distribution not in get_args(Distribution):
            raise ValueError(f"distribution is {shortened(self.distribution)}: use one of {get_args(Distribution)}")
        if not isinstance(self.encoder, str):
            raise ValueError(f"encoder is {shortened(self.encoder)}: use the name of a model")


class WordPolicy(nn.Module):
    """pi(e | s) = softmax(f(e || mean(E) || x_hat)), f a 3-layer MLP with one output a word (Eqs. 7-8).

    The first layer is linear, so f's part for the context (the mean and the patient) is computed once a prompt and
    added to each word's part: the same function as on the concatenation, for a fraction of the work.

    With a lexicon each word's logit is f's plus a weight for each form in which the lexicon knows it. f must learn from
    a few hundred rewards what the words have in common; of a word that stands in every prompt its own weight learns
    much faster. Without f (``hidden`` 0) the policy sees neither embeddings nor patient, and needs no encoder.

    Args:
        config: The policy's shape.
        lexicon: Numbers words; None = f alone, as in the paper.

    Raises:
        ValueError: There is neither a network nor a lexicon.
    """

    def __init__(self, config: PolicyConfig, lexicon: Lexicon | None = None) -> None:
        """Make a policy that is close to uniform over the legal words."""
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
        """What the policy needs to see of an env besides the words' numbers."""
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
        """Return a number for each slot before any mask, (B, W): a logit, or what else f is trained to be.

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
        for kind, size in (("embeddings", self.config.embedding_size), ("patient", self.config.patient_size)):
            if observation[kind].shape[-1] != size:
                raise ValueError(f"{kind} of {observation[kind].shape[-1]} numbers, but of {size} in training")
        left = embeddings.any(dim=-1)
        mean = embeddings.sum(dim=1) / left.sum(dim=1, keepdim=True).clamp(min=1)
        patient = observation["patient"] if self.config.patient else torch.zeros_like(observation["patient"])
        if self.config.normalize:
            embeddings, mean, patient = (nn.functional.layer_norm(x, x.shape[-1:]) for x in (embeddings, mean, patient))
        context = self.context(torch.cat([mean, patient], dim=-1))
        hidden = self.word(embeddings) + context[:, None, :]
        if self.positions is not None:
            if hidden.shape[1] > len(self.positions):
                raise ValueError(f"the prompts have {hidden.shape[1]} slots, {len(self.positions)} in training")
            hidden = hidden + self.positions[: hidden.shape[1]]
        scores = self.body(hidden).squeeze(-1)
        return scores if known is None else scores + known

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``config.json`` into ``folder``: all that ``from_pretrained`` needs."""
        folder = Path(folder)
        make_folder(folder)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        write(folder / WEIGHTS, save(tensors))
        settings = {**asdict(self.config), "lexicon": None if self.lexicon is None else self.lexicon.forms}
        write(folder / CONFIG, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: torch.device | str = "cpu", revision: str | None = None
    ) -> WordPolicy:
        """Read what ``save_pretrained`` wrote, on whatever device; nothing is unpickled.

        Args:
            source: A folder, such as ``runs/mine/checkpoint``, or a repository's name on the Hugging Face hub.
            device: Where the policy goes.
            revision: The repository's branch, tag or commit.

        Raises:
            ValueError: There is no such repository, or a file is missing, damaged or of another version, or describes
                no policy that there can be.
            ModelError: There is no such folder.
            OSError: The hub does not answer.
        """
        name = resolve(str(source))
        if not Path(name).is_dir():
            name = _downloaded(name, revision)
        try:
            described, weights = file_in(Path(name), CONFIG), file_in(Path(name), WEIGHTS)
        except ValueError as error:
            raise ValueError(f"{source} is not a policy: {error}") from None
        settings = read_object(described)
        try:
            lexicon = Lexicon.from_forms(forms) if (forms := settings.pop("lexicon", None)) is not None else None
            if unknown := settings.keys() - {each.name for each in fields(PolicyConfig)}:
                raise ValueError(f"there is no setting {shortened(min(unknown))} in this version of pmlm-env")
            if "embedding_size" not in settings:
                raise ValueError("embedding_size is missing")
            with torch.device("meta"):  # names and shapes alone
                policy = cls(PolicyConfig(**settings), lexicon)
        except ValueError as error:
            raise ValueError(f"{described}: {error}: copy it again, or train anew") from None
        shapes = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
        policy.load_state_dict(read_tensors(weights, shapes), assign=True)
        return policy.to(device).eval()


def _downloaded(name: str, revision: str | None) -> str:
    """Return the folder of a policy from the hub.

    Raises:
        ValueError: The hub has no such repository, or it cannot be a repository's name.
        OSError: The hub does not answer.
    """
    try:
        return snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS])
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError):
        raise ValueError(f"{name!r} is neither a folder nor a repository on the Hugging Face hub") from None
    except OSError as error:
        why = " ".join(str(error).split())
        raise OSError(f"{name!r} is no folder, and could not be downloaded from the hub: {why}") from None


class MaskedCategorical:
    """A categorical distribution over the legal slots of each prompt.

    Args:
        scores: Unnormalised log-probabilities, (B, W), any float type.
        legal: Which slots may be drawn, bool (B, W).

    Raises:
        ValueError: A prompt has no legal slot; a distribution over nothing would be uniform over illegal ones. Or a
            legal slot's score is NaN or infinite, or all of a prompt's are minus infinity.
    """

    def __init__(self, scores: torch.Tensor, legal: torch.Tensor) -> None:
        """Mask and normalise, in float32."""
        if not bool(legal.any(dim=-1).all()):
            rows = (~legal.any(dim=-1)).nonzero().flatten().tolist()
            raise ValueError(f"prompts {rows} have no word that may be deleted")
        scores = scores.float()
        # Of a NaN or an infinity a softmax makes NaNs, and the mode of those is the first word. Single scores of minus
        # infinity are probabilities of 0.
        below = ~legal | (scores < torch.inf)
        if not bool(below.all() & (legal & scores.isfinite()).any(dim=-1).all()):
            raise ValueError("the policy's scores are not finite: its weights are too large, or learning diverged")
        self.legal = legal
        self.log_probs = self._log_probs(scores, legal)

    @property
    def probs(self) -> torch.Tensor:
        """Probabilities, (B, W); exactly 0 for illegal slots."""
        return self.log_probs.exp().masked_fill(~self.legal, 0.0)

    def _log_probs(self, scores: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(~legal, torch.finfo(scores.dtype).min).log_softmax(dim=-1)

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


class MaskedSparsemax(MaskedCategorical):
    """As ``MaskedCategorical``, but with probabilities by sparsemax: the point of the simplex nearest to the scores.

    Where a word has no probability, its log-probability is that of 1e-12 and has no gradient.
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
        """Probabilities, (B, W); exactly 0 for illegal slots and for those that sparsemax leaves out."""
        probs = self.log_probs.exp()
        return torch.where(self.legal & (probs > 1e-11), probs, 0.0)
