"""Fine-tuning with LoRA: interrupted at any time, it goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tqdm import tqdm
from transformers import PreTrainedModel

from pmlm_env.device import seeded
from pmlm_env.io.files import write
from pmlm_env.llm.base import LLMError
from pmlm_env.llm.lora.adapters import CONFIG_FILE, Adapter, adapter_weights
from pmlm_env.llm.lora.kept import adapter_folder
from pmlm_env.llm.lora.settings import LoraSettings
from pmlm_env.llm.lora.tunable import TokenizedExample, TunableLM
from pmlm_env.llm.lora.validation import Example, validation_score
from pmlm_env.processes import ALONE, Processes, helping

logger = logging.getLogger(__name__)

_TRAINING_FILE = "training.safetensors"

#: How often the state of training is written, besides the end of each epoch.
_SECONDS_BETWEEN_SAVES = 120.0

#: Parts of the state in ``_TRAINING_FILE``: the adapter, AdamW's two moments, and the best epoch's adapter.
_NOW, _FIRST, _SECOND, _BEST = "now", "exp_avg", "exp_avg_sq", "best"


def fine_tune(
    lm: TunableLM,
    examples: Sequence[Example],
    validation: Sequence[Example],
    settings: LoraSettings | None = None,
    *,
    seed: int = 0,
    choices: Sequence[str] = (),
    description: str = "fine-tuning",
) -> Adapter:
    """Teach a model to complete prompts; only the tokens of the completions are learned.

    The result depends on the model's weights, the examples, the settings, the seed and the choices alone. So a finished
    adapter is kept in the folder ``lora`` of the cache and returned when the same is asked for again, and an
    interrupted training goes on from the last state that was written there: after each epoch, and every two minutes.

    Other processes that wait for it (``pmlm_env.llm.lora.together``) take a share of each batch and of the validation.
    The adapter is then the same but for rounding, which depends on the number of processes.

    Args:
        lm: The model. It has the returned adapter afterwards.
        examples: Prompts and completions to learn, at least one.
        validation: Prompts and completions that are not learned, at least one.
        settings: The settings.
        seed: Draws the initial weights and the order of the examples. Global generators are not used.
        choices: Completions, of which the score of an epoch says how often the right one is the likeliest; by default
            the score is the mean log-likelihood per token. See ``validation_score``. The adapter of the epoch with the
            highest score is returned.
        description: What the progress bar says.

    Returns:
        The adapter.

    Raises:
        ValueError: There are no examples, or peft is not installed, or another process damaged the state, or there
            are more processes than examples in a batch.
        LLMError: An example has more tokens than the model reads, or the model computes numbers that are not finite.
    """
    settings = settings or LoraSettings(rank=lm.rank, alpha=lm.alpha)
    if not examples or not validation:
        raise ValueError(f"fine-tuning needs examples to learn and to validate: got {len(examples)}, {len(validation)}")
    if (settings.rank, settings.alpha) != (lm.rank, lm.alpha):
        raise ValueError(f"the settings' rank and alpha are not those of {lm.name}: {lm.rank} and {lm.alpha}")
    processes = helping()
    if processes.size > settings.batch_size:
        raise ValueError(
            f"a batch has {settings.batch_size} examples, too few for {processes.size} processes: start at most "
            f"{settings.batch_size} (torchrun --nproc-per-node)"
        )
    parts = [1, lm.identity, [*examples], [*validation], asdict(settings), seed, *([[*choices]] if choices else [])]
    with adapter_folder(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]) as folder:
        if not (folder / CONFIG_FILE).is_file():
            job = Job(
                (lm.name, lm.device.type, lm.files.commit), lm.identity, examples, validation, asdict(settings), seed,
                choices,
            )  # fmt: skip
            processes.of_first(asdict(job))
            run = job.training(lambda: lm, processes, folder / _TRAINING_FILE)
            run.run(description).save(folder)
            (folder / _TRAINING_FILE).unlink()
        adapter = Adapter.load(folder, f"remove {folder}")
    lm.use(adapter)
    return adapter


@dataclass(frozen=True)
class Job:
    """A fine-tuning, as JSON values, for the processes that take part in it.

    Attributes:
        model: The model's name, the kind of device and the hub's commit, for ``tunable_lm``.
        identity: ``TunableLM.identity``.
        examples: See ``fine_tune``; likewise for ``validation``, ``settings``, ``seed`` and ``choices``.
    """

    model: tuple[str, str, str | None]
    identity: str
    examples: Sequence[Example]
    validation: Sequence[Example]
    settings: dict[str, Any]
    seed: int
    choices: Sequence[str]

    def training(self, load: Callable[[], TunableLM], processes: Processes, path: Path | None) -> _Training:
        """Return the training, in the same state in all processes.

        Args:
            load: Returns the model.
            processes: The processes that take part.
            path: The file of the state, in the first process.

        Raises:
            ValueError, LLMError: See ``fine_tune``; also if another process has another model.
        """
        with processes.together():
            lm = load()
            if lm.identity != self.identity:
                raise ValueError(f"the model {self.model[0]} or its number format differs between the processes")
            examples = [lm.tokenize(*example) for example in self.examples]
            score = validation_score(lm, self.validation, self.choices, processes)
            made = _Training(lm, examples, score, LoraSettings(**self.settings), self.seed, path, processes)
        made.agree()
        return made


@dataclass
class _Position:
    """How far training is.

    Attributes:
        step: Finished steps.
        scores: The validation score after each finished epoch.
    """

    step: int = 0
    scores: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The epoch with the highest score, from 0, the first of several; -1 before the first score."""
        return int(np.argmax(self.scores)) if self.scores else -1


class _Training:
    """One training, whose state is in a file, and the same in all processes that take part in it.

    The optimizer changes float32 copies of the adapter's weights, because in bfloat16 small changes would be lost.

    Args:
        lm: The model.
        examples: What to learn.
        validate: Returns the model's validation score.
        settings: The settings.
        seed: The seed.
        path: The file; None in all processes but the first, which alone writes.
        processes: The processes that take part: each computes its share of a batch's gradient.
    """

    def __init__(
        self,
        lm: TunableLM,
        examples: Sequence[TokenizedExample],
        validate: Callable[[], float],
        settings: LoraSettings,
        seed: int,
        path: Path | None,
        processes: Processes = ALONE,
    ) -> None:
        """Begin, or read the state that the file has."""
        self._lm, self._examples, self._validate = lm, examples, validate
        self._settings, self._seed, self._path, self._processes = settings, seed, path, processes
        self._weights = adapter_weights(lm.network)
        self._copies = _initial(self._weights, seed)
        self._optimizer = torch.optim.AdamW(self._copies.values(), weight_decay=0.0)
        self._position, self._best = _Position(), self._adapter()
        self._saved_at = time.monotonic()
        if path is not None and path.is_file():
            self._read(path)
        lm.use(self._adapter())

    def agree(self) -> None:
        """Give the other processes the state of the first."""
        if self._processes.size == 1:
            return
        position = self._processes.of_first(asdict(self._position))
        self._position = _Position(**position)
        self._processes.copy_first(self._copies.values())
        if self._position.step:
            for copy in self._copies.values():
                state = self._optimizer.state[copy]
                for part in (_FIRST, _SECOND):
                    state.setdefault(part, torch.zeros_like(copy, requires_grad=False))
                state.setdefault("step", torch.tensor(float(self._position.step)))
                self._processes.copy_first(state[part] for part in (_FIRST, _SECOND))
        self._lm.use(self._adapter())

    def run(self, description: str) -> Adapter:
        """Train to the end, and return the adapter of the best epoch."""
        settings, position = self._settings, self._position
        n = len(self._examples)
        per_epoch = -(-n // settings.batch_size)
        total = per_epoch * settings.n_epochs
        done = position.step // per_epoch * n + position.step % per_epoch * settings.batch_size
        with (
            _checkpointing(self._lm.network, settings.gradient_checkpointing),
            tqdm(
                total=n * settings.n_epochs, initial=done, desc=description, unit="example",
                disable=None if self._processes.leads else True,
            ) as bar,
        ):  # fmt: skip
            for epoch in range(len(position.scores), settings.n_epochs):
                if epoch - 1 - position.best_epoch >= settings.patience:
                    break
                order = np.random.default_rng([self._seed, epoch]).permutation(n)
                for start in range((position.step - epoch * per_epoch) * settings.batch_size, n, settings.batch_size):
                    batch = [self._examples[i] for i in order[start : start + settings.batch_size]]
                    self._step(batch, settings.rate(position.step, total), bar)
                    if time.monotonic() - self._saved_at > _SECONDS_BETWEEN_SAVES:
                        self._save()
                position.scores.append(self._validate())
                if position.best_epoch == epoch:
                    self._best = self._adapter()
                self._save()
                logger.info(
                    "%s: epoch %d of %d, validation %.4f",
                    description,
                    epoch + 1,
                    settings.n_epochs,
                    position.scores[-1],
                )
        return self._best

    def _step(self, batch: Sequence[TokenizedExample], rate: float, bar: tqdm) -> None:
        """Learn from one batch: the mean loss per token of its completions.

        Each example has random numbers of its own, for models with dropout, whichever process computes it.
        """
        n_tokens = sum(len(example.completion) for example in batch)
        self._lm.network.train()
        own = self._processes.share(len(batch))
        for place in range(own.start, own.stop):
            sequence = np.random.SeedSequence([self._seed, self._position.step, place])
            with seeded(int(sequence.generate_state(1)[0]), self._lm.device):
                (self._lm.loss(batch[place]) / n_tokens).backward()
            for name, copy in self._copies.items():
                gradient = self._weights[name].grad
                if gradient is not None:
                    copy.grad = gradient.float() if copy.grad is None else copy.grad.add_(gradient)
                    self._weights[name].grad = None
            bar.update()
        for copy in self._copies.values():
            if copy.grad is None:  # no token of the batch has reached the layer, such as an expert
                copy.grad = torch.zeros_like(copy)
        self._processes.add_gradients(self._copies.values())
        bar.update(len(batch) - (own.stop - own.start))
        norm = torch.nn.utils.clip_grad_norm_(self._copies.values(), self._settings.max_grad_norm)
        if not norm.isfinite():
            raise LLMError(f"{self._lm.name} computes gradients that are not finite: choose a lower learning rate")
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            for name, copy in self._copies.items():
                self._weights[name].copy_(copy)
        self._position.step += 1

    def _adapter(self) -> Adapter:
        tensors = {name: copy.detach().cpu().clone() for name, copy in self._copies.items()}
        return Adapter(self._lm.files.identity, self._settings.rank, self._settings.alpha, tensors)

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._path is None:
            return
        state = self._optimizer.state
        parts = {
            _NOW: {name: copy.detach() for name, copy in self._copies.items()},
            _FIRST: {name: state[copy][_FIRST] for name, copy in self._copies.items()},
            _SECOND: {name: state[copy][_SECOND] for name, copy in self._copies.items()},
            _BEST: self._best.tensors,
        }
        tensors = {f"{part}:{name}": each.cpu() for part, found in parts.items() for name, each in found.items()}
        write(self._path, save(tensors, {"position": json.dumps(asdict(self._position))}))

    def _read(self, path: Path) -> None:
        """Go on from the state in a file.

        Raises:
            ValueError: The file is damaged.
        """
        try:
            with safe_open(str(path), "pt") as file:
                content = json.loads(file.metadata()["position"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            position = _Position(int(content["step"]), list(map(float, content["scores"])))
            with torch.no_grad():
                for name, copy in self._copies.items():
                    copy.copy_(tensors[f"{_NOW}:{name}"])
                    self._optimizer.state[copy] = {
                        "step": torch.tensor(float(position.step)),
                        **{part: tensors[f"{part}:{name}"].to(copy.device) for part in (_FIRST, _SECOND)},
                    }
            best = {name: tensors[f"{_BEST}:{name}"] for name in self._copies}
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
            raise ValueError(f"{path} is damaged: remove it, and fine-tuning begins again") from None
        self._position = position
        self._best = Adapter(self._best.base, self._best.rank, self._best.alpha, best)
        logger.info("Fine-tuning goes on after %d steps", position.step)


@contextmanager
def _checkpointing(network: PreTrainedModel, is_on: bool) -> Iterator[None]:
    """Turn gradient checkpointing on inside this context."""
    if not is_on:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about its later names, which earlier versions do not have
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        try:
            yield
        finally:
            network.gradient_checkpointing_disable()


def _initial(weights: Mapping[str, torch.nn.Parameter], seed: int) -> dict[str, torch.nn.Parameter]:
    """Return float32 copies of an adapter's weights that change nothing yet: A is random and B is 0.

    A is drawn as PyTorch draws a linear layer's weights, and peft too.
    """
    generator = torch.Generator().manual_seed(seed)
    copies = {}
    for name, weight in weights.items():
        drawn = torch.zeros(weight.shape)
        if "lora_A" in name:
            bound = weight[0].numel() ** -0.5
            drawn.uniform_(-bound, bound, generator=generator)
        copies[name] = torch.nn.Parameter(drawn.to(weight.device))
    return copies
