"""Tree surrogate: boosted trees predict what a deletion brings, and choose which deletions are tried next."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agents.base import Agent, Edits, ReadTensors
from agents.baselines.config import TreeSurrogateConfig
from agents.baselines.deletions import edits_of, kept_after
from agents.baselines.forest import Forest
from agents.baselines.single_rule import RolePlace, read_place, role_places
from agents.policies.lexicon import FEWEST_PROMPTS, N_FORMS, Lexicon
from agents.problem import Problem
from agents.settings import Floats
from pmlm_env.core.edits import Prompts
from pmlm_env.core.episodes import Episode

if TYPE_CHECKING:
    import torch

#: The number of ``prompt_facts``.
N_FACTS = 5

#: Trees are fitted to at least so many deletions.
_FEWEST = 21

#: Minimum share of the deletions in a leaf, and minimum number.
_LEAF, _LEAST = 1 / 256, 5

#: Prompts whose deletions are searched at once, which bounds the memory.
_PROMPTS = 256

#: Seeds the last fit, as the number of the batch does the others.
_LAST = 10_000

#: Attempts to vary a deletion that was tried before.
_VARIATIONS = 5

Index = npt.NDArray[np.int64]
Array = npt.NDArray[np.float32]

#: Predicts the deltas of deletions, float64 (N,), from the number of each one's prompt in the search and its features.
_Predict = Callable[[Index, Array], npt.NDArray[np.float64]]


class _Path(NamedTuple):
    """The deletions that a search adds one after another to a prompt, and the value predicted after each."""

    slots: tuple[int, ...]
    values: list[float]

    def best(self, keep: bool) -> tuple[int, ...]:
        """Return the deletions with the greatest value; none if ``keep`` and no value is above 0."""
        n = int(np.argmax([0.0, *self.values])) if keep else int(np.argmax(self.values)) + 1
        return self.slots[:n]


class _Sample(NamedTuple):
    """What was tried: the patient, the features of the deletion, and its delta in points."""

    patient: int
    features: Array
    points: float


class TreeSurrogate(Agent):
    """Deletes the words whose deletion gets the best prediction from boosted trees, fitted on the way.

    The trees see which words are deleted, by their forms in the lexicon and by role and place, and what the prompt says
    of the patient; so, unlike ``surrogate``, they find words that help only together or only for some patients. Each of
    several models is fitted to a resample of the training patients. After random deletions, a model drawn for each
    prompt chooses what is tried next (Thompson sampling with bootstrapped models, Osband and Van Roy 2015), and some
    models are fitted again. To refine a prompt, the word with the best prediction is deleted, again and again; of the
    prompts on this way, the initial one included, the best is taken. The prediction is the mean of the models, less a
    multiple of their standard deviation.

    Attributes:
        lexicon: Assigns numbers to words; empty before ``fit``.
        places: The roles and places that have features.
        labels: The labels that were predicted for training patients, sorted.
        forests: The models; they predict 0 before ``fit``.
    """

    name = "tree-surrogate"
    needs_embeddings = False
    Config = TreeSurrogateConfig
    space = {"explored": Floats(0.2, 0.8), "caution": Floats(0.0, 2.0)}  # noqa: RUF012
    config: TreeSurrogateConfig

    def __init__(self, config: TreeSurrogateConfig | None = None, seed: int = 0) -> None:
        """Start with models that predict 0."""
        super().__init__(config, seed)
        self.lexicon = Lexicon(())
        self.places: tuple[RolePlace, ...] = ()
        self.labels: tuple[str, ...] = ()
        self.forests = [Forest.empty(self.config.trees, self.config.depth)] * self.config.members

    def fit(self, problem: Problem) -> None:
        """Try deletions until the budget is spent; see ``Agent.fit``."""
        self._look_at(problem)
        config, rng = self.config, np.random.default_rng(self.seed)
        episodes, meter = problem.episodes, problem.reward
        total = meter.prompts_left
        patients = rng.permutation(len(episodes))[: max(1, total // (config.tries + 1))]
        size = max(1, total // config.rounds)
        samples: list[_Sample] = []
        tried: set[tuple[int, frozenset[int]]] = set()
        queue: list[int] = []
        fitted = False
        try:
            for turn in range(meter.most_episodes // size):
                while len(queue) < size:
                    queue += rng.permutation(patients).tolist()
                index, queue = np.array(queue[:size]), queue[size:]
                deleted = self._drawn(problem, index, rng)
                if total - meter.prompts_left >= config.explored * total and len(samples) >= _FEWEST:
                    again = rng.permutation(config.members)[: config.refits] if fitted else range(config.members)
                    for member in again:
                        self.forests[member] = self._fitted(samples, member, turn)
                    fitted = True
                    deleted = self._chosen(problem, index, deleted, tried, rng)
                n = self._paid(problem, index, deleted)
                if n == 0:
                    break
                index, deleted = index[:n], deleted[:n]
                outcomes = problem.judge(index.tolist(), kept_after(problem, index, deleted))
                features = self._features(problem, index, deleted)
                for row, patient in enumerate(index.tolist()):
                    tried.add((patient, frozenset(deleted[row])))
                    if not outcomes.failed[row]:
                        samples.append(_Sample(patient, features[row], 100 * float(outcomes.delta[row])))
        finally:
            if len(samples) >= _FEWEST:
                self.forests = [self._fitted(samples, member, _LAST) for member in range(config.members)]

    def fit_to(
        self, problem: Problem, patients: Sequence[int], deleted: Sequence[tuple[int, ...]], points: Sequence[float]
    ) -> None:
        """Learn from deletions that were tried before, without asking for a reply.

        Args:
            problem: The training patients.
            patients: The patient of each deletion, N of them.
            deleted: The slots of its words.
            points: Its delta, in points.
        """
        self._look_at(problem)
        features = self._features(problem, np.asarray(patients), deleted)
        samples = [_Sample(*row) for row in zip(patients, features, points, strict=True)]
        self.forests = [self._fitted(samples, member, _LAST) for member in range(self.config.members)]

    def predicted(
        self, problem: Problem, patients: Sequence[int], deleted: Sequence[tuple[int, ...]]
    ) -> npt.NDArray[np.float64]:
        """Return the models' mean prediction of deletions' deltas, in points, float64 (N,).

        Args:
            problem: The patients.
            patients: The patient of each deletion, N of them.
            deleted: The slots of its words.
        """
        return self._predicted(self._features(problem, np.asarray(patients), deleted))[0]

    def refine(self, problem: Problem) -> Edits:
        """Delete the words with the best prediction; see ``Agent.refine``."""

        def cautious(_: Index, features: Array) -> npt.NDArray[np.float64]:
            mean, deviation = self._predicted(features)
            return mean - self.config.caution * deviation

        paths = self._search(problem, np.arange(len(problem.episodes)), cautious)
        return edits_of(problem, [path.best(keep=True) for path in paths])

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return what the trees look at, and the trees; see ``Agent.learned``."""
        import torch

        arrays = {
            name: np.array([getattr(forest, name) for forest in self.forests], dtype=np.float32)
            for name in self._tensors
        }
        values = {"lexicon": self.lexicon.forms, "places": self.places, "labels": self.labels}
        return values, {name: torch.from_numpy(array) for name, array in arrays.items()}

    def words(self) -> tuple[str, ...]:
        """Return the words in the lexicon, and the predicted labels; see ``Agent.words``."""
        return (*self.lexicon.words, *self.labels)

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore what the trees look at, and the trees; see ``Agent.restore``."""
        assert self.shape is not None
        self._check_names(values, {"lexicon", "places", "labels"})
        self.lexicon = Lexicon.from_forms(values["lexicon"])
        self.places = _read_places(values["places"], self.shape.max_words)
        self.labels = _read_labels(values["labels"])
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors(self._tensors).items()}
        feature = arrays["feature"]
        if not np.isin(feature, np.arange(self._n_columns)).all():
            raise ValueError(f"a tree looks at a feature that is none of the {self._n_columns}")
        parts = feature.astype(np.int64), arrays["threshold"], arrays["value"]
        self.forests = [Forest(*each) for each in zip(*parts, strict=True)]

    def _predicted(self, features: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the mean and the standard deviation of the models' predictions, each float64 (N,)."""
        each = np.array([forest(features) for forest in self.forests])
        return each.mean(axis=0), each.std(axis=0)

    def _look_at(self, problem: Problem) -> None:
        """Choose what the trees look at, and forget what they learned."""
        self.shape, config, episodes = problem.shape, self.config, problem.episodes
        self.lexicon = Lexicon.of(episodes)
        often = Counter(place for episode in episodes for place in role_places(episode.roles))
        self.places = tuple(sorted(place for place, n in often.items() if n >= FEWEST_PROMPTS))
        self.labels = tuple(sorted({episode.predicted for episode in episodes}))
        self.forests = [Forest.empty(config.trees, config.depth)] * config.members

    @property
    def _tensors(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the trees' arrays, by name."""
        config = self.config
        trees = config.members, config.trees
        inner = 2**config.depth - 1
        return {"feature": (*trees, inner), "threshold": (*trees, inner), "value": (*trees, inner + 1)}

    @property
    def _n_columns(self) -> int:
        """The number of features: deleted words by number and by place, and the facts of the prompt."""
        return len(self.lexicon) + len(self.places) + N_FACTS

    def _columns(self, problem: Problem, index: Index) -> Index:
        """Return the features that count each word, int64 (N, max_words, N_FORMS + 1); 0 stands for none."""
        column = {place: number for number, place in enumerate(self.places, start=len(self.lexicon))}
        columns = np.zeros((len(index), problem.max_words, N_FORMS + 1), dtype=np.int64)
        columns[:, :, :N_FORMS] = self.lexicon.ids(problem.episodes, problem.max_words)[index]
        for row, i in enumerate(index.tolist()):
            places = role_places(problem.episodes[i].roles)
            columns[row, : len(places), N_FORMS] = [column.get(place, 0) for place in places]
        return columns

    def _whole(self, problem: Problem, index: Index) -> Array:
        """Return the features of the prompts at ``index`` with nothing deleted, float32 (N, number of features)."""
        features = np.zeros((len(index), self._n_columns), dtype=np.float32)
        features[:, -N_FACTS:] = [prompt_facts(problem.episodes[i], self.labels) for i in index.tolist()]
        return features

    def _features(self, problem: Problem, index: Index, deleted: Sequence[tuple[int, ...]]) -> Array:
        """Return the features of deletions from the prompts at ``index``, float32 (N, number of features)."""
        features, columns = self._whole(problem, index), self._columns(problem, index)
        for row, slots in enumerate(deleted):
            np.add.at(features[row], columns[row, list(slots)].ravel(), 1)
        features[:, 0] = 0
        return features

    def _drawn(self, problem: Problem, index: Index, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """Return random deletions, each of a random number of words."""
        batch = problem.batch(index)
        ranked = np.argsort(-np.where(batch.legal, rng.random(batch.legal.shape), -1), axis=1)
        most = np.minimum(batch.budgets, batch.legal.sum(axis=1)).tolist()
        sizes = [int(rng.integers(1, each + 1)) if each else 0 for each in most]
        return [tuple(row[:size].tolist()) for row, size in zip(ranked, sizes, strict=True)]

    def _chosen(
        self,
        problem: Problem,
        index: Index,
        drawn: Sequence[tuple[int, ...]],
        tried: set[tuple[int, frozenset[int]]],
        rng: np.random.Generator,
    ) -> list[tuple[int, ...]]:
        """Return for each prompt what one of the models finds best; varied by a drawn deletion if that was tried."""
        member = rng.integers(len(self.forests), size=len(index))

        def own(prompt: Index, features: Array) -> npt.NDArray[np.float64]:
            predicted = np.zeros(len(prompt))
            for number in np.unique(member):
                rows = member[prompt] == number
                predicted[rows] = self.forests[number](features[rows])
            return predicted

        chosen = []
        for patient, path, other in zip(index.tolist(), self._search(problem, index, own), drawn, strict=True):
            slots = path.best(keep=False) if path.slots else ()
            for attempt in range(1, _VARIATIONS + 1):
                if not slots or (patient, frozenset(slots)) not in tried:
                    break
                varied = {*slots} - {slots[int(rng.integers(len(slots)))]} | {other[attempt % len(other)]}
                slots = tuple(sorted(varied))
            chosen.append(slots)
        return chosen

    def _search(self, problem: Problem, index: Index, predict: _Predict) -> list[_Path]:
        """Delete the word with the best prediction from each prompt, again and again, until the edit budget is used."""
        paths = []
        for start in range(0, len(index), _PROMPTS):
            part = index[start : start + _PROMPTS]
            paths += self._search_part(problem, part, partial(_numbered, predict, start))
        return paths

    def _search_part(self, problem: Problem, index: Index, predict: _Predict) -> list[_Path]:
        batch, columns = problem.batch(index), self._columns(problem, index)
        legal, budgets = batch.legal, batch.budgets
        gone = self._whole(problem, index)
        paths = [_Path((), []) for _ in index]
        for step in range(int(budgets.max(initial=0))):
            prompt, slot = np.nonzero(legal & (budgets > step)[:, None])
            if not len(prompt):
                break
            features = gone[prompt]
            for form in range(columns.shape[2]):
                features[np.arange(len(prompt)), columns[prompt, slot, form]] += 1
            features[:, 0] = 0
            values = predict(prompt, features)
            for row in np.unique(prompt).tolist():
                first, last = np.searchsorted(prompt, [row, row + 1])
                best = int(first) + int(values[first:last].argmax())
                paths[row] = _Path((*paths[row].slots, int(slot[best])), [*paths[row].values, float(values[best])])
                legal[row, slot[best]] = False
                gone[row] = features[best]
        return paths

    def _paid(self, problem: Problem, index: Index, deleted: Sequence[tuple[int, ...]]) -> int:
        """Return how many of the prompts, from the first on, the budget pays for."""
        meter, kept = problem.reward, kept_after(problem, index, deleted)

        def cost(n: int) -> int:
            first = index[:n].tolist()
            return meter.cost(first, Prompts(problem.episodes, first, kept[:n]))

        return bisect_right(range(1, len(index) + 1), meter.left, key=cost) if meter.prompts_left else 0

    def _fitted(self, samples: Sequence[_Sample], member: int, turn: int) -> Forest:
        """Return trees fitted to a resample of the patients; the same for the same member and turn."""
        from sklearn.ensemble import GradientBoostingRegressor  # takes a second

        config, rng = self.config, np.random.default_rng([self.seed, member, turn])
        patients = np.array([sample.patient for sample in samples])
        different = np.unique(patients)
        drawn = rng.choice(different, len(different))
        rows = np.concatenate([np.flatnonzero(patients == patient) for patient in drawn])
        model = GradientBoostingRegressor(
            n_estimators=config.trees,
            learning_rate=0.1,
            max_depth=config.depth,
            subsample=0.5,
            max_features=0.3,
            min_samples_leaf=max(_LEAST, int(_LEAF * len(rows))),
            random_state=int(rng.integers(2**31)),
        )
        model.fit(np.array([samples[row].features for row in rows]), np.array([samples[row].points for row in rows]))
        return Forest.of(model, config.depth)


def prompt_facts(episode: Episode, labels: Sequence[str]) -> tuple[int, ...]:
    """Return what a prompt says of the patient, for a model that sees which words are deleted.

    The number of the predicted label among ``labels``, -1 for another; the number of words; how many labels the peers
    have; how many peers have the commonest of them; and 1 if that is the predicted one, else 0.
    """
    number = labels.index(episode.predicted) if episode.predicted in labels else -1
    label, most = (Counter(episode.peers).most_common(1) or [("", 0)])[0]
    return number, len(episode.words), len(set(episode.peers)), most, int(label == episode.predicted)


def _numbered(predict: _Predict, first: int, prompt: Index, features: Array) -> npt.NDArray[np.float64]:
    """Predict for prompts that are numbered from ``first`` on."""
    return predict(prompt + first, features)


def _read_places(value: Any, max_words: int) -> tuple[RolePlace, ...]:
    """Check the places of a saved agent.

    Raises:
        ValueError: They are not roles with whole numbers, or one occurs twice.
    """
    if not isinstance(value, list):
        raise ValueError(f"places is {shortened(value)}: use a list of [role, place]")
    places = tuple(read_place("places", each, max_words) for each in value)
    if len(set(places)) < len(places):
        raise ValueError("places holds the same place twice")
    return places


def _read_labels(value: Any) -> tuple[str, ...]:
    """Check the labels of a saved agent.

    Raises:
        ValueError: They are not texts.
    """
    if not (isinstance(value, list) and all(isinstance(label, str) for label in value)):
        raise ValueError(f"labels is {shortened(value)}: use a list of texts")
    return tuple(value)
