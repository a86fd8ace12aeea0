"""What all stored replies together teach: python -m benchmarks.offline --episodes prepared --cache replies.sqlite.

A fit of the benchmark sees 300 replies. Here, models of the change of F1 learn from that many and from more, up to all
stored replies to training patients' prompts with some words deleted, and choose among the deletions that were tried for
each test prompt, keeping it whole included. A model never sees a test patient's letter, nor a score against it.
Patients with the same prompt count as one, with the mean of their changes, because they get the same deletion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tyro
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agents.baselines.single_rule import role_places
from agents.baselines.tree_surrogate import prompt_facts
from agents.evaluation.bootstrap import mean_interval
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.words import letters
from pmlm_env.io.files import write_json
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.rewards.bertscore import BertScorer

#: Weights of squared coefficients that are tried.
PENALTIES = (10.0, 100.0, 1_000.0, 10_000.0, 100_000.0)

#: Number of fits of a model, each to a resample of the training prompts; the mean of their predictions counts.
FITS = 10

#: Numbers of replies to learn from, besides all, and how often so many are drawn.
SIZES, DRAWS = (300, 1000, 3000), 3

#: Number of boosted trees.
TREES = 200

#: Minimum share of the replies in a leaf of the boosted trees, and minimum number.
LEAF, LEAST = 1 / 256, 5

#: A place or word counts if so many deletions contain it.
FEWEST = 10

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        episodes: The folder of ``pmlm prepare`` that the replies belong to.
        cache: The stored replies.
        llm: The LLM whose replies are used, without ``local:``.
        json: Output file.
    """

    episodes: Path
    cache: Path
    llm: str = "qwen2.5-coder-0.5b"
    json: Path | None = None


class Tried(NamedTuple):
    """A deletion that was tried for a patient.

    Attributes:
        patient: The patient's index among the episodes, or that of the first patient with the prompt.
        gone: The deleted slots.
        change: The change of BERTScore F1, in points.
    """

    patient: int
    gone: tuple[int, ...]
    change: float


def deleted_from(initial: Sequence[str], words: Sequence[str]) -> tuple[int, ...] | None:
    """Return slots whose deletion turns one prompt into another; None if no deletion does.

    Where a word occurs several times, its first occurrence counts as kept.
    """
    kept: list[int] = []
    slot = 0
    for word in words:
        while slot < len(initial) and initial[slot] != word:
            slot += 1
        if slot == len(initial):
            return None
        kept.append(slot)
        slot += 1
    return tuple(sorted(set(range(len(initial))) - set(kept)))


def belonging(
    prompts: Iterable[str], episodes: EpisodeSet, n_edits: int = 10
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Return the initial prompt and the deleted slots of each prompt that belongs to exactly one initial prompt.

    Args:
        prompts: Texts, words separated by white space.
        episodes: The patients.
        n_edits: The most words that are deleted from a prompt.
    """
    initial = {episode.words: Counter(episode.words) for episode in episodes}
    found = {}
    for text in prompts:
        words = tuple(text.split())
        counts = Counter(words)
        hits = [
            (each, gone)
            for each, has in initial.items()
            if 0 <= len(each) - len(words) <= n_edits
            and not counts - has
            and (gone := deleted_from(each, words)) is not None
        ]
        whole = [hit for hit in hits if not hit[1]]
        if len(hits) == 1 or whole:
            found[text] = (whole or hits)[0]
    return found


def tried(episodes: EpisodeSet, replies: Mapping[str, str], scorer: BertScorer) -> list[Tried]:
    """Return the change of F1 by each deletion with a stored reply, for every patient with the initial prompt, sorted.

    Args:
        episodes: The patients.
        replies: The reply to each prompt.
        scorer: BERTScore.

    Raises:
        ValueError: There is no such reply.
    """
    having: dict[tuple[str, ...], list[int]] = {}
    for number, episode in enumerate(episodes):
        having.setdefault(episode.words, []).append(number)
    found = belonging(replies, episodes)
    rows = [(i, gone, replies[text]) for text, (words, gone) in found.items() for i in having[words]]
    if not rows:
        raise ValueError(
            "no stored reply belongs to a prompt of these episodes: give the cache and the LLM of their runs"
        )
    compared = sorted({(reply, episodes[i].reference) for i, _, reply in rows})
    scores = dict(zip(compared, 100 * scorer.f1(*zip(*compared, strict=True)), strict=True))
    score = [float(scores[reply, episodes[i].reference]) for i, _, reply in rows]
    whole = {i: f1 for (i, gone, _), f1 in zip(rows, score, strict=True) if not gone}
    pairs = zip(rows, score, strict=True)
    return sorted(Tried(i, gone, f1 - whole[i]) for (i, gone, _), f1 in pairs if gone and i in whole)


def by_prompt(rows: Iterable[Tried], episodes: EpisodeSet) -> list[Tried]:
    """Return each deletion from each prompt once, with the mean change of the patients with the prompt."""
    found: dict[tuple[tuple[str, ...], tuple[int, ...]], list[Tried]] = {}
    for row in rows:
        found.setdefault((episodes[row.patient].words, row.gone), []).append(row)
    return sorted(
        Tried(min(row.patient for row in same), gone, float(np.mean([row.change for row in same])))
        for (_, gone), same in found.items()
    )


def places(episode: Episode) -> list[str]:
    """Return the name of each word by role and place."""
    return [f"{role} {place}" for role, place in role_places(episode.roles)]


def words(episode: Episode) -> list[str]:
    """Return the name of each word by role and text."""
    return [f"{role} {letters(word)}" for role, word in zip(episode.roles, episode.words, strict=True)]


class Counts:
    """How many words of each name a deletion takes away, for names that were deleted often enough in training.

    Args:
        named: Functions that name the words of an episode.
        training: The deletions that decide which names count.
        episodes: The patients.
    """

    def __init__(
        self, named: Sequence[Callable[[Episode], list[str]]], training: Sequence[Tried], episodes: EpisodeSet
    ) -> None:
        """Find the names."""
        self._named, self._episodes = named, episodes
        often = Counter(name for row in training for name in set(self._names(row)))
        self._column = {name: j for j, name in enumerate(sorted(n for n, times in often.items() if times >= FEWEST))}

    def __call__(self, rows: Sequence[Tried]) -> Array:
        """Return the counts, float64 (deletions, names)."""
        counts = np.zeros((len(rows), len(self._column)))
        for row, deletion in enumerate(rows):
            for name in self._names(deletion):
                if name in self._column:
                    counts[row, self._column[name]] += 1
        return counts

    def _names(self, row: Tried) -> list[str]:
        of_words = [named(self._episodes[row.patient]) for named in self._named]
        return [names[slot] for names in of_words for slot in row.gone]


def of_prompts(rows: Sequence[Tried], episodes: EpisodeSet, labels: Sequence[str]) -> Array:
    """Return what each deletion's prompt says of the patient, float64 (deletions, N_FACTS); see ``prompt_facts``."""
    return np.asarray([prompt_facts(episodes[row.patient], labels) for row in rows], dtype=np.float64)


def linear(seen: Array, changes: Array, drawn: Rows, left: Rows, seed: int) -> Any:
    """Fit a linear model, with the penalty that is best for prompts that were not drawn."""
    models = [make_pipeline(StandardScaler(), Ridge(alpha=each)).fit(seen[drawn], changes[drawn]) for each in PENALTIES]
    return min(models, key=lambda model: float(((model.predict(seen[left]) - changes[left]) ** 2).sum()))


def trees(seen: Array, changes: Array, drawn: Rows, left: Rows, seed: int) -> Any:
    """Fit boosted trees."""
    return HistGradientBoostingRegressor(
        max_iter=TREES,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=max(LEAST, round(LEAF * len(drawn))),
        l2_regularization=10,
        early_stopping=False,
        random_state=seed,
    ).fit(seen[drawn], changes[drawn])


#: The models, which get the same: counts of deleted places and words, and what the prompt says of the patient.
MODELS = {"linear": linear, "trees": trees}


def predictions(train: Sequence[Tried], test: Sequence[Tried], episodes: EpisodeSet) -> dict[str, Array]:
    """Fit each model to training prompts' deletions, and return what it predicts for test prompts', float64 (N,).

    A model is the mean of fits to resamples of the prompts, because one fit hangs on details of the data.
    """
    labels = sorted({episode.predicted for episode in episodes})
    counts = Counts((places, words), train, episodes)
    seen, asked = (np.hstack([counts(part), of_prompts(part, episodes, labels)]) for part in (train, test))
    changes, prompts = np.asarray([row.change for row in train]), np.asarray([row.patient for row in train])
    found: dict[str, list[Array]] = {name: [] for name in MODELS}
    for seed in range(FITS):
        drawn = np.random.default_rng(seed).choice(np.unique(prompts), len(np.unique(prompts)))
        rows = np.concatenate([np.flatnonzero(prompts == prompt) for prompt in drawn])
        left = np.flatnonzero(~np.isin(prompts, drawn))
        for name, fit in MODELS.items():
            found[name].append(fit(seen, changes, rows, left, seed).predict(asked))
    return {name: np.mean(fits, axis=0) for name, fits in found.items()}


def measure(episodes: EpisodeSet, rows: Sequence[Tried]) -> dict[str, Any]:
    """Fit each model to numbers of training prompts' deletions, and let it choose among test prompts'.

    Args:
        episodes: The patients.
        rows: The deletions of both; see ``tried``.

    Returns:
        ``deletions``: how many of training and test prompts, and together; ``prompts``: how many test prompts, and
        those of them that no training patient has (``unseen``). For both: the mean change by ``chance`` and in
        ``hindsight``, and for each of ``models`` and number of ``replies``, ``gain``: mean and 95 % interval over
        prompts of the change by what the model chose, averaged over draws; ``draws``: the mean of each draw; ``whole``:
        the share of prompts that it kept whole; and ``explained``, the share of the variance within prompts that it
        explains in unseen prompts.
    """
    train, test = (
        by_prompt([row for row in rows if episodes[row.patient].split == split], episodes)
        for split in ("train", "test")
    )
    known = {episodes[row.patient].words for row in train}
    prompts = np.asarray([row.patient for row in test])
    own = [np.flatnonzero(prompts == prompt) for prompt in np.unique(prompts)]
    parts = {"all": np.ones(len(own), dtype=bool)}
    parts["unseen"] = np.asarray([episodes[int(prompts[each[0]])].words not in known for each in own])
    changes = np.asarray([row.change for row in test])

    def of_parts(values: Iterable[float]) -> dict[str, list[float | None]]:
        array, found = np.asarray([*values], dtype=np.float64), {}
        for part, which in parts.items():
            if which.any():
                mean = mean_interval(array[which], np.random.default_rng(0))
                found[part] = [None if each is None else round(each, 3) for each in (mean.mean, mean.low, mean.high)]
        return found

    def explained(predicted: Array) -> float:
        left = within = 0.0
        for each, unseen in zip(own, parts["unseen"], strict=True):
            if unseen:
                left += float(np.var(changes[each] - predicted[each]))
                within += float(np.var(changes[each]))
        return round(1 - left / within, 3) if within else float("nan")

    models = []
    for size in (*(size for size in SIZES if size < len(train)), len(train)):
        subsets = [train] if size == len(train) else [_drawn(train, size, seed) for seed in range(DRAWS)]
        guesses = [predictions(subset, test, episodes) for subset in subsets]
        for name in MODELS:
            best = np.asarray([[np.append(guess[name][each], 0.0).argmax() for each in own] for guess in guesses])
            gains = np.asarray([[np.append(changes[e], 0.0)[i] for i, e in zip(b, own, strict=True)] for b in best])
            models.append(
                {
                    **{"model": name, "replies": size, "gain": of_parts(gains.mean(axis=0))},
                    "draws": gains.mean(axis=1).round(3).tolist(),
                    "whole": round(float((best == [len(each) for each in own]).mean()), 3),
                    "explained": float(np.mean([explained(guess[name]) for guess in guesses]).round(3)),
                }
            )
    of_train, of_test = ({(episodes[r.patient].words, r.gone) for r in part} for part in (train, test))
    return {
        "deletions": {"train": len(of_train), "test": len(of_test), "together": len(of_train | of_test)},
        "prompts": {part: int(which.sum()) for part, which in parts.items()},
        "chance": of_parts(changes[each].mean() for each in own),
        "hindsight": of_parts(max(0.0, changes[each].max()) for each in own),
        "models": models,
    }


def _drawn(rows: Sequence[Tried], size: int, seed: int) -> list[Tried]:
    return [rows[i] for i in sorted(np.random.default_rng(seed).choice(len(rows), size, replace=False).tolist())]


def table(results: Mapping[str, Any]) -> list[str]:
    """Return the lines of a Markdown table of what each way of choosing gains."""
    parts = [part for part, prompts in results["prompts"].items() if prompts]
    titles = {"all": "change of F1, {} test prompts", "unseen": "change of F1, {} of them not seen in training"}
    heads = ["chosen by", "replies", *(titles[part].format(results["prompts"][part]) for part in parts)]
    heads += ["kept whole", "variance explained"]

    def row(*cells: str) -> str:
        return f"| {' | '.join(cells)} |"

    def interval(mean: float, low: float | None, high: float | None) -> str:
        return f"{mean:+.2f}" if low is None else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"

    def simple(name: str) -> str:
        return row(name, "-", *(interval(*results[name][part]) for part in parts), "-", "-")

    return [
        row(*heads),
        f"|{'---|' * len(heads)}",
        simple("chance"),
        *(
            row(
                *(each["model"], f"{each['replies']:,}", *(interval(*each["gain"][part]) for part in parts)),
                *(f"{100 * each['whole']:.0f} %", f"{each['explained']:.2f}"),
            )
            for each in results["models"]
        ),
        simple("hindsight"),
    ]


def replies_of(cache: Path, llm: str) -> dict[str, str]:
    """Return the first reply of a local LLM to each prompt.

    Raises:
        ValueError: The cache has its replies with several settings.
    """
    replies, settings = {}, set()
    for each in ReplyCache(cache):
        told = each.request["llm"]
        if isinstance(told, dict) and told.get("local") == llm and each.request["sample"] == 0:
            replies[each.request["prompt"]] = each.reply["text"]
            settings.add(each.identity)
    if len(settings) > 1:
        raise ValueError(f"{cache} has replies of {llm} with {len(settings)} settings: keep those of one (pmlm cache)")
    return replies


def main(options: Options) -> None:
    """Measure, print a table, and write the results to a file if one is given."""
    episodes = EpisodeSet.load(options.episodes)
    rows = tried(episodes, replies_of(options.cache, options.llm), BertScorer())
    results = measure(episodes, rows)
    print("\n".join(table(results)))
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main(tyro.cli(Options))
