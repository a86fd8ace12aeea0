"""Speed on a GPU beside the limit of the card: python -m benchmarks.gpu --out FILE.

Encoder, BERTScore, local LLM, policy update and LoRA in their real sizes, with random weights that are made on the
card: nothing is downloaded. The limit of each is computed from the card's rates in a large matrix product and a large
copy, which are measured first (``benchmarks.gpu_limits``). ``--device cpu --quick`` runs everything in small sizes, as
a test: its results mean nothing.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
import tyro
from tqdm import tqdm

from agents.policy_gradient.agent import NetworkAgent
from agents.problem import MeteredReward, Problem
from agents.registry import DEFAULT, make, settings_of
from benchmarks.gpu_limits import (
    Phase,
    Rates,
    decoding,
    encoding,
    lora_pass,
    measure_rates,
    policy_update,
    read_weights,
    timings,
)
from benchmarks.gpu_models import ModelSize, random_weights
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.core.words import Role
from pmlm_env.device import choose_device
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.io.files import write_json
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.llm.local.model_files import find_model
from pmlm_env.llm.lora.settings import LoraSettings
from pmlm_env.llm.lora.training import _Training
from pmlm_env.llm.lora.tunable import TokenizedExample, TunableLM
from pmlm_env.rewards.bertscore import BertScorer

#: MiniLM-L6, Qwen2-0.5B and SmolLM2-135M.
MINILM = ModelSize("bert", 6, 384, 12, 12, 1_536, 30_522)
QWEN2 = ModelSize("qwen2", 24, 896, 14, 2, 4_864, 151_936)
SMOLLM2 = ModelSize("llama", 30, 576, 9, 3, 1_536, 49_152)


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        out: Output file, JSON.
        device: ``cuda``, ``cuda:N``, or ``cpu`` with ``quick``.
        quick: Whether to use small sizes, to test that everything runs.
        seconds: Seconds of timings per row; there are 2 to 15 timings.
    """

    out: Path | None = None
    device: str = "cuda"
    quick: bool = False
    seconds: float = 6.0


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        encoder: The model of the word encoder and of BERTScore.
        decoder: The local LLM.
        tuned: The LLM that LoRA trains.
        prompts: Prompts per batch of the encoder.
        words: Words of a prompt.
        pairs: Pairs of reply and reference per batch of BERTScore.
        text: Words of a reply, and of a reference.
        prompt_tokens: Tokens of the local LLM's prompts.
        new_tokens: Tokens of its replies.
        batches: Its batch sizes. The largest is measured first.
        example: Tokens of an example for LoRA.
        completion: How many of them are learned.
        side: Rows of the matrices that give the rate of arithmetic.
        copied: Bytes of the copy that gives the rate of the memory.
    """

    encoder: ModelSize = MINILM
    decoder: ModelSize = QWEN2
    tuned: ModelSize = SMOLLM2
    prompts: int = 128
    words: int = 190
    pairs: int = 64
    text: int = 46
    prompt_tokens: int = 250
    new_tokens: int = 128
    batches: tuple[int, ...] = (256, 64, 1)
    example: int = 800
    completion: int = 20
    side: int = 8_192
    copied: int = 2**30


QUICK = Sizes(
    encoder=ModelSize("bert", 2, 32, 2, 2, 64, 500),
    decoder=ModelSize("qwen2", 2, 32, 2, 1, 64, 500),
    tuned=ModelSize("llama", 2, 32, 2, 1, 64, 500),
    prompts=4,
    words=20,
    pairs=4,
    text=10,
    prompt_tokens=20,
    new_tokens=6,
    batches=(4, 1),
    example=30,
    completion=4,
    side=128,
    copied=2**20,
)


@dataclass(frozen=True)
class Row:
    """A result.

    Attributes:
        name: What was measured.
        unit: What is counted per second.
        median: Its rate, by the median of the timings.
        min: Its rate by the longest timing.
        max: Its rate by the shortest timing.
        timings: The number of timings.
        limit: The highest rate that the card admits.
        limited_by: ``arithmetic`` or ``memory``: what sets this limit.
    """

    name: str
    unit: str
    median: float
    min: float
    max: float
    timings: int
    limit: float
    limited_by: str

    @property
    def share(self) -> float:
        """The share of the limit that is reached."""
        return self.median / self.limit


class _Measurement:
    """Measures one row after another.

    Args:
        sizes: What is measured.
        device: On which device.
        seconds: Seconds of timings per row.
        folder: A temporary folder for configurations and tokenizers.
    """

    def __init__(self, sizes: Sizes, device: torch.device, seconds: float, folder: Path) -> None:
        """Measure the device's rates."""
        self.sizes, self.device, self.seconds, self.folder = sizes, device, seconds, folder
        self.rng = np.random.default_rng(0)
        self.rates: Rates = measure_rates(device, sizes.side, sizes.copied)

    def rows(self) -> Iterator[Row]:
        """Measure everything."""
        with random_weights(self.device):
            yield self.encoder()
            yield self.bertscore()
            for dtype in (torch.bfloat16, torch.float32):
                yield from self.decoder(dtype)
            yield self.policy()
            yield self.lora()

    def encoder(self) -> Row:
        """Embed the words of prompts."""
        sizes, dtype = self.sizes, torch.bfloat16 if self.device.type == "cuda" else torch.float32
        encoder = WordEncoder(sizes.encoder.save(self.folder / "encoder"), str(self.device))
        # A comma after every third word is a token of its own.
        prompts = [self._words(sizes.encoder, sizes.words, commas=True) for _ in range(sizes.prompts)]
        kept = np.ones((sizes.prompts, sizes.words), dtype=np.bool_)
        n = 2 + sum(map(len, map(encoder._word_pieces, prompts[0])))  # with [CLS] and [SEP]
        output = 4 * kept.size * sizes.encoder.hidden
        work = encoding(sizes.encoder, [n] * sizes.prompts, dtype, batches=1, output=output)
        name = f"word encoder, {sizes.prompts} prompts of {sizes.words} words, {_named(dtype)}"
        return self._row(name, "prompts", sizes.prompts, [work], partial(encoder.encode, prompts, kept))

    def bertscore(self) -> Row:
        """Score new replies against known references."""
        sizes = self.sizes
        scorer = BertScorer(sizes.encoder.save(self.folder / "scorer"), device=str(self.device))
        references = [" ".join(self._words(sizes.encoder, sizes.text)) for _ in range(sizes.pairs)]

        def score() -> None:
            scorer.score([" ".join(self._words(sizes.encoder, sizes.text)) for _ in references], references)

        n = sizes.text + 2
        layers = replace(sizes.encoder, layers=scorer.num_layers)
        work = encoding(layers, [n] * sizes.pairs, torch.float32, batches=-(-sizes.pairs // 32))
        match = 2 * sizes.pairs * n * n * layers.hidden
        name = f"BERTScore, {sizes.pairs} new replies of {n} tokens, float32"
        return self._row(name, "pairs", sizes.pairs, [replace(work, flops=work.flops + match)], score)

    def decoder(self, dtype: torch.dtype) -> Iterator[Row]:
        """Decode batches of replies."""
        sizes = self.sizes
        path = sizes.decoder.save(self.folder / "decoder")
        llm = FullLengthLLM(path, device=str(self.device), dtype=dtype, batch_size=max(sizes.batches))
        length = sizes.prompt_tokens - len(llm._chat.encode("w0")) + 1
        for i, batch in enumerate(sizes.batches):
            prompts = [" ".join(self._words(sizes.decoder, length)) for _ in range(batch)]

            def decode(prompts: Sequence[str] = prompts) -> None:
                for reply in llm.generate(prompts):
                    assert (reply.prompt_tokens, reply.completion_tokens) == (sizes.prompt_tokens, llm.max_new_tokens)

            # The first warm-up lasts to the end, so that all memory is allocated; the others are of smaller batches.
            llm.max_new_tokens = 4 if i else sizes.new_tokens
            decode()
            llm.max_new_tokens = sizes.new_tokens
            name = f"local LLM, batch of {batch}, {sizes.new_tokens} new tokens, {_named(dtype)}"
            work = decoding(sizes.decoder, batch, sizes.prompt_tokens, sizes.new_tokens, dtype)
            yield self._row(name, "tokens", batch * sizes.new_tokens, work, decode, warm_up=False)

    def policy(self) -> Row:
        """Update the default agent's policy: episodes and gradient steps, without encoder and LLM."""
        sizes, agent = self.sizes, make(DEFAULT, settings_of(DEFAULT, "real"))
        assert isinstance(agent, NetworkAgent)
        config, embedding = agent.config, sizes.encoder.hidden
        rows = (config.patients or 1) * config.rollouts
        encoder = RandomEmbeddings(rows, sizes.words, embedding, self.device)
        problem = Problem(self._episodes(), encoder, MeteredReward(RandomReward(), 10**9))
        agent.begin(problem)
        steps = int(problem.budgets[0])
        work = policy_update(rows, sizes.words, embedding, config.hidden, steps, config.epochs, torch.float32)
        name = f"policy update, {rows} episodes of {steps} edits, {sizes.words} words, {config.epochs} epochs, float32"
        return self._row(name, "updates", 1, [work], agent.update)

    def lora(self) -> Row:
        """Take a training step of LoRA."""
        sizes, settings = self.sizes, LoraSettings()
        files = find_model(sizes.tuned.save(self.folder / "tuned"))
        lm = TunableLM(files, "the LLM", self.device, settings.rank, settings.alpha)
        tokens = self.rng.integers(7, sizes.tuned.vocabulary, (settings.batch_size, sizes.example)).tolist()
        cut = sizes.example - sizes.completion
        examples = [TokenizedExample(each[:cut], each[cut:]) for each in tokens]
        training = _Training(lm, examples, lambda: 0.0, settings, 0, self.folder / "training.safetensors")
        bar = tqdm(disable=True)
        # Weights are read forward and backward for each example: examples are computed one at a time.
        traffic = 2 * lm.dtype.itemsize * read_weights(sizes.tuned)
        n = sizes.example - 1  # the last token is not read
        work = Phase(lora_pass(sizes.tuned, n, sizes.completion, settings.rank), traffic, lm.dtype)
        name = f"LoRA step, {settings.batch_size} examples of {sizes.example} tokens, {_named(lm.dtype)}"
        step = partial(training._step, examples, settings.learning_rate, bar)
        return self._row(name, "tokens", settings.batch_size * sizes.example, [work] * settings.batch_size, step)

    def _row(
        self, name: str, unit: str, amount: int, work: Sequence[Phase], call: Callable[[], Any], warm_up: bool = True
    ) -> Row:
        """Time a call that does some amount of work."""
        found = timings(call, self.device, self.seconds, warm_up=warm_up)
        limit, limited_by = self.rates.limit(work)
        median, low, high = (amount / seconds for seconds in (statistics.median(found), max(found), min(found)))
        return Row(name, unit, median, low, high, len(found), amount / limit, limited_by)

    def _words(self, size: ModelSize, n: int, commas: bool = False) -> list[str]:
        """Draw n words that the model knows, with a comma after every third."""
        numbers = self.rng.integers(size.vocabulary - 7, size=n).tolist()
        return [f"w{number}" + "," * (commas and i % 3 == 2) for i, number in enumerate(numbers)]

    def _episodes(self) -> EpisodeSet:
        """Return 96 patients' prompts."""
        roles: tuple[Role, ...] = tuple("self" for _ in range(self.sizes.words))
        made = []
        for i in range(96):
            vector = self.rng.standard_normal(128, dtype=np.float32)
            words = tuple(self._words(self.sizes.encoder, self.sizes.words))
            made.append(Episode(f"P{i}", "train", words, roles, vector, "w0", "w0", "w0", ("w0",)))
        return EpisodeSet(made)


class FullLengthLLM(LocalLLM):
    """Ends no reply before the maximum number of tokens, so that each timing is of equal work."""

    @property
    def _min_new_tokens(self) -> int:
        return self.max_new_tokens


class RandomEmbeddings:
    """An encoder that takes no time: the same random vectors for each prompt."""

    def __init__(self, rows: int, words: int, hidden_size: int, device: torch.device) -> None:
        """Draw the vectors, on the device."""
        self.device, self.hidden_size = device, hidden_size
        self._vectors = torch.randn(rows, words, hidden_size, device=device)

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Return embeddings, zeros where no word is left; see ``WordEncoder.encode``."""
        return self._vectors[: len(kept)] * torch.from_numpy(kept).to(self.device)[:, :, None]


class RandomReward:
    """Gives random scores."""

    def __init__(self) -> None:
        """Begin to draw."""
        self._rng = np.random.default_rng(0)

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Return the scores of refined prompts."""
        n = len(indices)
        return Outcomes(self._rng.random(n), np.zeros(n), np.ones(n, dtype=np.int64))


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def table(results: dict[str, Any]) -> str:
    """Return the results as a table in Markdown."""
    lines = [
        f"On {results['device']}, torch {results['torch']}, transformers {results['transformers']}; matrix products at "
        f"{results['bfloat16_flops'] / 1e12:,.0f} (bfloat16) and {results['float32_flops'] / 1e12:,.1f} (float32) "
        f"TFLOP/s, a copy at {results['bandwidth'] / 1e12:,.2f} TB/s:",
        "",
        "| | per second | median | min | max | timings | limit | set by | share of the limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        rates = " | ".join(_short(row[key]) for key in ("median", "min", "max"))
        limit = f"{_short(row['limit'])} | {row['limited_by']} | {row['share']:.2%}"
        lines.append(f"| {row['name']} | {row['unit']} | {rates} | {row['timings']} | {limit} |")
    return "\n".join(lines)


def _short(rate: float) -> str:
    """Return a rate with three digits, or as a whole number."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def main(options: Options) -> None:
    """Measure everything, print a table, and write the results as JSON."""
    is_cpu = options.device == "cpu"
    if is_cpu and not options.quick:
        raise SystemExit("on a CPU this takes hours and means little: add --quick to test that everything runs")
    if not is_cpu and not torch.cuda.is_available():
        raise SystemExit(
            f"this needs a GPU, and torch {torch.__version__} sees none. It would measure the word encoder, BERTScore, "
            "the local LLM, the policy update and LoRA against the card's limits; --device cpu --quick tries it in "
            "small sizes"
        )
    device = choose_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        measurement = _Measurement(QUICK if options.quick else Sizes(), device, options.seconds, Path(folder))
        results: dict[str, Any] = {
            "device": "the CPU, in small sizes" if is_cpu else torch.cuda.get_device_name(device),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **{f"{_named(dtype)}_flops": rate for dtype, rate in measurement.rates.flops.items()},
            "bandwidth": measurement.rates.bandwidth,
            "rows": [],
        }
        for row in measurement.rows():
            print(f"{row.name}: {row.median:,.2f} {row.unit} per second, {row.share:.2%} of the limit", flush=True)
            results["rows"].append({**asdict(row), "share": row.share})
            if options.out is not None:  # at once: an error in a later row loses no earlier one
                write_json(options.out, results)
    print("\n" + table(results))


if __name__ == "__main__":
    main(tyro.cli(Options))
