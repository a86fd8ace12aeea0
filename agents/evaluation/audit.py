"""Audit of a reward: what texts earn that nobody wrote for the patient; ``pmlm audit``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from agents.evaluation.adversaries import CEILINGS, JUDGED, TextSearch, after, reply_variants
from agents.evaluation.audit_report import UNTOUCHED
from agents.evaluation.bootstrap import FEWEST, mean_interval
from agents.evaluation.config import AuditConfig
from agents.evaluation.controls import control_replies
from agents.evaluation.metrics import ReplyMetrics
from agents.evaluation.replies import replies_to
from agents.models import RunModels
from agents.problem import blind
from agents.settings import plain
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.io.files import locked_file, make_folder, write_json
from pmlm_env.llm.base import Completion, Request, all_or_error
from pmlm_env.pipeline.sent import check_sent
from pmlm_env.rewards.base import mean_of
from pmlm_env.rewards.delta import error_of, given

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Chosen:
    """The patients of an audit.

    Attributes:
        audited: The patients on whom texts are judged.
        searched: Training patients on whom texts are searched, none of whom is in ``audited``; perhaps none.
        training: All training patients, whose letters may be used; perhaps none.
        everybody: The set that all of them are part of.
    """

    audited: list[Episode]
    searched: list[Episode]
    training: list[Episode]
    everybody: EpisodeSet


def audit(config: AuditConfig) -> dict[str, Any]:
    """Compare what texts earn under a reward with the replies to untouched prompts, and write ``config.out``.

    Returns:
        The content of the file, which has no text of a patient: ``winners``, the judged texts whose 95 % interval is
        above zero; ``texts``, what each earns, with its mean components; what was audited, and on how many patients.
        Also ``best``, which is not written: the texts that were searched.

    Raises:
        ValueError: There are too few patients for an interval, or the reward cannot be used with them.
        RuntimeError: Too many replies are missing.
        BudgetExceededError: A limit is reached; the replies so far are cached.
    """
    everybody = EpisodeSet.load(config.episodes)
    chosen = _chosen(everybody, config)
    make_folder(config.out.parent)
    with locked_file(config.out):
        cache = config.calls.cache or str(config.out.with_name(f"{config.out.name}.replies.sqlite"))
        training = chosen.everybody.part(chosen.training) if chosen.training else None
        models = RunModels(
            config.models, replace(config.calls, cache=cache), training=training, conditions=chosen.everybody.conditions
        )
        check_sent(config.episodes, models.llm, config.calls.send_values)
        asked = _asked(models, chosen)
        found = {
            **_judged(models, asked, config.seed),
            "split": config.split,
            "seed": config.seed,
            "without_reply": len(chosen.audited) + len(chosen.searched) - len(asked.audited) - len(asked.searched),
            "asked": models.options.n_samples * (len(chosen.audited) + len(chosen.searched)),
            "llm_calls": models.budget.usage.calls,
            "models": plain(models.options),
        }
        write_json(config.out, {name: value for name, value in found.items() if name != "best"})
    return found


def _chosen(everybody: EpisodeSet, config: AuditConfig) -> _Chosen:
    """Draw the patients.

    Raises:
        ValueError: There are too few patients to audit on.
    """
    rng = np.random.default_rng(config.seed)
    candidates = list(everybody.of(config.split))
    training = [episode for episode in everybody if episode.split == "train"]
    audited, searched = candidates, [e for e in training if e.label and e.reference.strip()]
    if config.split == "train":  # a text must not be judged on patients on whom it was chosen
        drawn = _drawn(candidates, rng)
        audited, searched = drawn[::2], drawn[1::2]
    if len(audited) < FEWEST:
        half = "half of them to search texts on, and " if config.split == "train" else ""
        raise ValueError(
            f"{config.episodes} has {len(candidates)} {config.split} patients with a label and a doctor's reply: an "
            f"audit needs {half}{FEWEST} or more to judge them on"
        )
    return _Chosen(
        _drawn(audited, rng)[: config.patients],
        _drawn(searched, rng)[: config.patients],
        training,
        everybody,
    )


def _drawn(episodes: Sequence[Episode], rng: np.random.Generator) -> list[Episode]:
    """Return the episodes in random order."""
    return [episodes[i] for i in rng.permutation(len(episodes)).tolist()]


def _asked(models: RunModels, chosen: _Chosen) -> _Chosen:
    """Ask for the replies to all untouched prompts, and leave out the patients of whom one is missing.

    Raises:
        RuntimeError: Too few patients are left.
    """
    everyone, n_samples = [*chosen.audited, *chosen.searched], models.options.n_samples
    requests = [Request(episode.prompt, sample) for episode in everyone for sample in range(n_samples)]
    with tqdm(total=len(requests), desc="asking", unit="reply", dynamic_ncols=True) as bar:
        replies = replies_to(models.llm, requests, models.calls.max_failures, bar.update)
    errors = [error_of(replies[start : start + n_samples]) for start in range(0, len(replies), n_samples)]
    n = len(chosen.audited)
    there = [
        [episode for episode, error in zip(episodes, said, strict=True) if not error]
        for episodes, said in ((chosen.audited, errors[:n]), (chosen.searched, errors[n:]))
    ]
    if len(there[0]) < FEWEST:
        last = next(error for error in reversed(errors) if error)
        raise RuntimeError(
            f"only {len(there[0])} of {n} patients have a reply, and an audit needs {FEWEST}; the last error: {last}"
        )
    return replace(chosen, audited=there[0], searched=there[1])


class _Patients:
    """Patients with the replies to their untouched prompts, and what other replies to these prompts earn.

    Args:
        episodes: The patients.
        models: The models, which have the replies in their cache.
    """

    def __init__(self, episodes: EpisodeSet, models: RunModels) -> None:
        """Read the replies."""
        self.episodes, self._reward = episodes, models.reward(episodes)
        self.prompts = [episode.prompt for episode in episodes]
        first: list[Completion] = all_or_error(models.llm.ask([Request(prompt) for prompt in self.prompts]))
        self.replies = [reply.text for reply in first]
        self.cut = [reply.finish_reason == "length" for reply in first]

    def earned(self, texts: Sequence[str], patients: Sequence[int], cut: bool = False) -> npt.NDArray[np.float64]:
        """Return what texts earn as replies to the patients at the given indices, float64 (N,)."""
        prompts = [self.prompts[i] for i in patients]
        return self._reward.of_replies(patients, prompts, [[given(text, cut)] for text in texts]).delta


def _judged(models: RunModels, chosen: _Chosen, seed: int) -> dict[str, Any]:
    """Judge all texts on the patients, and return the results."""
    patients = _Patients(chosen.everybody.part(chosen.audited), models)
    n, unseen = len(chosen.audited), blind(patients.episodes)
    letters = chosen.everybody.part(chosen.training) if chosen.training else unseen  # which has no letters
    texts = control_replies(unseen, letters, models.scorer.f1, seed)
    texts |= reply_variants(patients.replies, texts["facts"], chosen.everybody.conditions)
    best = _searched(models, chosen) if chosen.searched else {}
    texts |= {name: [text] * n for name, text in best.items()}
    if "best-ending" in best:
        texts["best-ending"] = after(patients.replies, texts["best-ending"])
    metrics = ReplyMetrics(patients.episodes, letters, models.scorer, models.own_reward)
    rows: dict[str, Any] = {
        UNTOUCHED: {"components": _means(metrics(patients.replies, patients.prompts, patients.cut))}
    }
    for name in [name for name in (*JUDGED, *CEILINGS) if name in texts and all(map(str.strip, texts[name]))]:
        cut = name == "truncated"
        interval = mean_interval(patients.earned(texts[name], range(n), cut), np.random.default_rng(seed))
        rows[name] = {
            "judged": name in JUDGED,
            "earns": {"mean": interval.mean, "ci95": [interval.low, interval.high]},
            "components": _means(metrics(texts[name], patients.prompts, [cut] * n, patients.replies)),
        }
    return {
        "winners": [name for name in rows if name in JUDGED and rows[name]["earns"]["ci95"][0] > 0],
        "texts": rows,
        "patients": n,
        "searched_on": len(chosen.searched),
        "letters": sum(bool(episode.reference.strip()) for episode in letters),
        "best": best,
    }


def _searched(models: RunModels, chosen: _Chosen) -> dict[str, str]:
    """Return the texts that earn most on training patients: as the reply, and as the end of each patient's reply."""
    patients = _Patients(chosen.everybody.part(chosen.searched), models)
    n = len(chosen.searched)
    logger.info("Searching the texts that earn most on %d training patients", n)
    search = TextSearch([e.reference for e in chosen.searched], chosen.everybody.conditions)

    def as_ending(texts: Sequence[str], indices: Sequence[int]) -> npt.NDArray[np.float64]:
        return patients.earned(after([patients.replies[i] for i in indices], texts), indices)

    whole = [*search.letters, *search.without_conditions, *patients.replies]
    best = {"best-text": search.best(whole, patients.earned, n)}
    if search.sentences:
        best["best-ending"] = search.best([*search.sentences, *search.without_conditions], as_ending, n)
    return best


def _means(metrics: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float | None]:
    """Return the mean of each metric over the patients who have a value."""
    means = {name: mean_of(values) for name, values in metrics.items()}
    return {name: None if np.isnan(mean) else mean for name, mean in means.items()}
