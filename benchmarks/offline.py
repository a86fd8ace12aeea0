"""What all stored replies together teach: python -m benchmarks.offline --episodes prepared --cache replies.sqlite.

A fit of the benchmark sees 300 replies. Here, models of the change of F1 learn from every stored reply to a training
patient's prompt with some words deleted, and choose among the deletions that were tried for each test patient, keeping
the whole prompt included. A model never sees a test patient's reply before it has chosen.
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
from sklearn.model_selection import GroupKFold

from agents.baselines.single_rule import role_places
from agents.evaluation.bootstrap import mean_interval
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.words import letters
from pmlm_env.io.files import write_json
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.rewards.bertscore import BertScorer

#: Weights of squared coefficients that are tried.
PENALTIES = (1.0, 10.0, 100.0, 1000.0)

#: Number of boosted models, each fitted to a resample of the training prompts; the mean of their predictions counts.
FITS = 10

#: A place or word has a coefficient if it was deleted from so many prompts.
FEWEST = 10

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        episodes: The folder of ``pmlm prepare`` that the replies belong to.
        cache: The stored replies.
        llm: The LLM whose replies are used, without ``local:``.
        json: Output file.
        trees: Number of trees of the boosted model.
    """

    episodes: Path
    cache: Path
    llm: str = "qwen2.5-coder-0.5b"
    json: Path | None = None
    trees: int = 200


class Tried(NamedTuple):
    """A deletion that was tried for a patient.

    Attributes:
        patient: The patient's index among the episodes.
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
    """
    having: dict[tuple[str, ...], list[int]] = {}
    for number, episode in enumerate(episodes):
        having.setdefault(episode.words, []).append(number)
    found = belonging(replies, episodes)
    rows = [(i, gone, replies[text]) for text, (words, gone) in found.items() for i in having[words]]
    compared = sorted({(reply, episodes[i].reference) for i, _, reply in rows})
    scores = dict(zip(compared, 100 * scorer.f1(*zip(*compared, strict=True)), strict=True))
    score = [float(scores[reply, episodes[i].reference]) for i, _, reply in rows]
    whole = {i: f1 for (i, gone, _), f1 in zip(rows, score, strict=True) if not gone}
    pairs = zip(rows, score, strict=True)
    return sorted(Tried(i, gone, f1 - whole[i]) for (i, gone, _), f1 in pairs if gone and i in whole)


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


def of_patients(rows: Sequence[Tried], episodes: EpisodeSet, labels: Sequence[str]) -> Array:
    """Return what is known of the patient of each deletion, float64 (deletions, 5).

    The predicted label's number, the number of words, the number of labels among the peers, how many peers have the
    commonest of them, and whether that is the predicted one.
    """
    facts = []
    for row in rows:
        episode = episodes[row.patient]
        label, most = Counter(episode.peers).most_common(1)[0]
        facts.append(
            [
                labels.index(episode.predicted),
                len(episode.words),
                len(set(episode.peers)),
                most,
                label == episode.predicted,
            ]
        )
    return np.asarray(facts, dtype=np.float64)


def weights_of(rows: Sequence[Tried], episodes: EpisodeSet) -> Array:
    """Return weights that count each prompt once, however many patients share it."""
    prompts = [(episodes[row.patient].words, row.gone) for row in rows]
    times = Counter(prompts)
    return np.asarray([1 / times[prompt] for prompt in prompts])


def ridge(seen: Array, changes: Array, weights: Array, groups: Sequence[int]) -> Ridge:
    """Fit a linear model whose penalty is chosen on training patients that a fit has not seen."""

    def error(penalty: float) -> float:
        wrong = 0.0
        for fitted, left in GroupKFold(5).split(seen, groups=groups):
            model = Ridge(alpha=penalty).fit(seen[fitted], changes[fitted], sample_weight=weights[fitted])
            wrong += float((weights[left] * (model.predict(seen[left]) - changes[left]) ** 2).sum())
        return wrong

    return Ridge(alpha=min(PENALTIES, key=error)).fit(seen, changes, sample_weight=weights)


def boosted(
    seen: Array, changes: Array, weights: Array, groups: npt.NDArray[np.int64], n_trees: int, seed: int
) -> HistGradientBoostingRegressor:
    """Fit boosted trees to a resample of the initial prompts, because one fit hangs on details of the data."""
    times = np.bincount(
        np.random.default_rng(seed).choice(np.unique(groups), len(np.unique(groups))), minlength=1 + groups.max()
    )
    drawn = times[groups] > 0
    model = HistGradientBoostingRegressor(
        max_iter=n_trees,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=100,
        l2_regularization=10,
        early_stopping=False,
        random_state=seed,
    )
    return model.fit(seen[drawn], changes[drawn], sample_weight=(weights * times[groups])[drawn])


def judged(rows: Sequence[Tried], predicted: Array) -> dict[str, Any]:
    """Return how well changes were predicted, and the gain of what is predicted to be best for each patient.

    Args:
        rows: Deletions tried for test patients.
        predicted: The predicted change of each, float64 (deletions,); that of keeping the whole prompt is 0.
    """
    changes = np.asarray([row.change for row in rows])
    patients = np.asarray([row.patient for row in rows])
    chosen, best = [], []
    for patient in np.unique(patients):
        own = patients == patient
        options, guesses = np.append(changes[own], 0.0), np.append(predicted[own], 0.0)
        chosen.append(float(options[guesses.argmax()]))
        best.append(float(options.max()))
    explained = 1 - ((changes - predicted) ** 2).sum() / ((changes - changes.mean()) ** 2).sum()
    gain = mean_interval(np.asarray(chosen), np.random.default_rng(0))
    return {
        "patients": len(chosen),
        "r2": round(float(explained), 3),
        "gain": [round(gain.mean, 3), *(None if end is None else round(end, 3) for end in (gain.low, gain.high))],
        "kept_whole": round(float(np.mean([change == 0 for change in chosen])), 3),
        "best_in_hindsight": round(float(np.mean(best)), 3),
        "mean": round(float(changes.mean()), 3),
    }


def measure(episodes: EpisodeSet, rows: Sequence[Tried], n_trees: int = 200) -> dict[str, Any]:
    """Fit each model to training patients' deletions, and let it choose among test patients'.

    Args:
        episodes: The patients.
        rows: The deletions of both.
        n_trees: Number of trees of the boosted models.
    """
    train = [row for row in rows if episodes[row.patient].split == "train"]
    test = [row for row in rows if episodes[row.patient].split == "test"]
    trained_on = {episodes[row.patient].words for row in train}
    new = np.asarray([episodes[row.patient].words not in trained_on for row in test])
    changes, weights = np.asarray([row.change for row in train]), weights_of(train, episodes)
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(episode.words for episode in episodes))}
    groups = [numbers[episodes[row.patient].words] for row in train]
    labels = sorted({episode.predicted for episode in episodes})
    vectors = [np.asarray([episodes[row.patient].vector for row in part], dtype=np.float64) for part in (train, test)]
    guesses: dict[str, Array] = {}
    for name, named in {"places": (places,), "words": (words,), "places and words": (places, words)}.items():
        counts = Counts(named, train, episodes)
        guesses[f"linear, {name}"] = ridge(counts(train), changes, weights, groups).predict(counts(test))
    parts = [np.hstack([counts(part), of_patients(part, episodes, labels)]) for part in (train, test)]
    trees = {
        "trees": parts,
        "trees, with the patient vector": [np.hstack(pair) for pair in zip(parts, vectors, strict=True)],
    }
    single: dict[str, list[float]] = {}
    for name, (fitted, asked) in trees.items():
        fits = [
            boosted(fitted, changes, weights, np.asarray(groups), n_trees, seed).predict(asked) for seed in range(FITS)
        ]
        guesses[name] = np.mean(fits, axis=0)
        single[name] = [judged(test, fit)["gain"][0] for fit in fits]
    unseen = [row for row, is_new in zip(test, new, strict=True) if is_new]
    return {
        "prompts": {
            part: len({(episodes[row.patient].words, row.gone) for row in of_part})
            for part, of_part in (("train", train), ("test", test))
        },
        "models": {
            name: {
                "all": judged(test, guess),
                **({"new_prompts": judged(unseen, guess[new])} if unseen else {}),
                **({"single_fits": single[name]} if name in single else {}),
            }
            for name, guess in guesses.items()
        },
    }


def table(results: Mapping[str, Any]) -> list[str]:
    """Return the lines of a Markdown table of what each way of choosing gains."""
    first = next(iter(results["models"].values()))
    parts = [part for part in ("all", "new_prompts") if part in first]
    titles = {"all": "change of F1, {} test patients", "new_prompts": "change of F1, {} with prompts of their own"}
    heads = ["chosen by", "explained variance", *(titles[part].format(first[part]["patients"]) for part in parts)]

    def row(name: str, explained: str, changes: Iterable[str]) -> str:
        return f"| {' | '.join([name, explained, *changes])} |"

    def interval(mean: float, low: float | None, high: float | None) -> str:
        return f"{mean:+.2f}" if low is None else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"

    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        row("nobody: no deletion", "-", ["0" for _ in parts]),
        row("chance", "-", [f"{first[part]['mean']:+.2f}" for part in parts]),
        *(
            row(name, f"{of['all']['r2']:.2f}", [interval(*of[part]["gain"]) for part in parts])
            for name, of in results["models"].items()
        ),
        row("hindsight", "-", [f"{first[part]['best_in_hindsight']:+.2f}" for part in parts]),
    ]


def replies_of(cache: Path, llm: str) -> dict[str, str]:
    """Return the first reply of a local LLM to each prompt."""
    replies = {}
    for each in ReplyCache(cache):
        told = each.request["llm"]
        if isinstance(told, dict) and told.get("local") == llm and each.request["sample"] == 0:
            replies[each.request["prompt"]] = each.reply["text"]
    return replies


def main(options: Options) -> None:
    """Measure, print a table, and write the results to a file if one is given."""
    episodes = EpisodeSet.load(options.episodes)
    rows = tried(episodes, replies_of(options.cache, options.llm), BertScorer())
    results = measure(episodes, rows, options.trees)
    print("\n".join(table(results)))
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main(tyro.cli(Options))
