"""Before and after on held-out patients: keep-all, random deletion, the policy, and the controls beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from agents.baselines.single_rule import SingleRule, role_places
from agents.evaluation.bootstrap import Interval, mean_interval
from agents.evaluation.controls import CONTROLS, control_replies
from agents.evaluation.metrics import METRICS, ReplyMetrics
from agents.models import RunModels
from agents.policies.distributions import MaskedCategorical
from agents.policies.rollout import play
from agents.policies.word_policy import WordPolicy
from agents.problem import Problem, blind
from pmlm_env.core.edits import apply_edits, deletions
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm.base import Request, all_or_error

#: Most prompts edited at once.
_ROWS = 64

#: Those whose replies are the LLM's; ``RULE`` comes where a rule was searched.
ARMS = ("keep_all", "random", "policy")
RULE = "single_rule"


class UniformPolicy(torch.nn.Module):
    """Deletes any legal word with equal probability: the control."""

    def forward(self, observation: dict[str, torch.Tensor]) -> MaskedCategorical:
        """Return the uniform distribution over legal slots."""
        mask = observation["action_mask"]
        return MaskedCategorical(torch.zeros(mask.shape, device=mask.device), mask != 0)


def evaluate_arms(
    bench: RunModels,
    episodes: EpisodeSet,
    training: EpisodeSet,
    policy: WordPolicy,
    seed: int,
    rule: SingleRule | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Refine every prompt in each way, score the replies, and compare them with each other and with the controls.

    A test patient's reference is read for scoring alone. The policy plays greedily; random deletion takes as many
    words.

    Args:
        bench: The models.
        episodes: Held-out patients.
        training: Training patients, whose letters the controls and the margin need.
        policy: Who is judged.
        seed: Draws the random deletions and the bootstrap's resamples.
        rule: A fitted rule for everybody, to tell what of the policy's gain is personal.
        progress: Called with the number of prompts done, now and then.

    Returns:
        ``summary`` (means by arm and control, ``delta`` of F1 and ``margin_delta`` with 95 % intervals, paired by
        patient, and ``edits``, in how many different ways prompts were edited), ``patients``, and ``without_reply``,
        who is left out because a reply could not be had. The same run gives the same, however often it was
        interrupted; so what was spent stands elsewhere (``spent.json``).

    Raises:
        RuntimeError: No patient's replies are all there, so that nothing can be compared.
    """
    played = _played(bench, episodes, policy, seed, rule, progress)
    errors = {i: info["llm_error"] for arm in played for i, info in enumerate(played[arm]) if "llm_error" in info}
    if len(errors) == len(episodes):
        raise RuntimeError(f"no patient's replies are all there; the last is missing because: {errors[max(errors)]}")
    whole = [i for i in range(len(episodes)) if i not in errors]
    left_out = [episodes[i].patient_id for i in sorted(errors)]
    said = control_replies(blind(episodes), training, _f1(bench))
    episodes = EpisodeSet([episodes[i] for i in whole])
    played = {arm: [infos[i] for i in whole] for arm, infos in played.items()}
    texts: dict[str, list[dict[str, Any]]] = {
        "keep_all": [
            {"prompt": e.prompt, "deleted": (), "reply": info["initial_reply"]}
            for e, info in zip(episodes, played["policy"], strict=True)
        ],
        **{
            arm: [
                {"prompt": info["prompt"], "deleted": [edit.slot for edit in info["edits"]], "reply": info["reply"]}
                for info in infos
            ]
            for arm, infos in played.items()
        },
    }
    metrics = ReplyMetrics(episodes, training, bench.scorer)
    scores = {arm: _score(bench, metrics, [text["prompt"] for text in texts[arm]]) for arm in texts}
    for name, replies in said.items():
        texts[name] = [{"reply": replies[i]} for i in whole]
        scores[name] = metrics([replies[i] for i in whole], [e.prompt for e in episodes])
    patients = [
        {
            "patient_id": e.patient_id,
            "label": e.label,
            "predicted": e.predicted,
            "peers": e.peers,
            "words": e.words,
            "roles": e.roles,
            "reference": e.reference,
            "arms": {
                arm: {**texts[arm][i], **{name: _plain(scores[arm][name][i]) for name in METRICS}} for arm in texts
            },
        }
        for i, e in enumerate(episodes)
    ]
    places = [role_places(e.roles) for e in episodes]
    edits = {
        arm: len({frozenset(places[i][slot] for slot in text["deleted"]) for i, text in enumerate(texts[arm])})
        for arm in ("keep_all", *played)
    }
    return {
        "summary": {**summarise(scores, seed), "edits": edits},
        "n_patients": len(episodes),
        "without_reply": left_out,
        "models": asdict(bench.options),
        "patients": patients,
    }


def _played(
    bench: RunModels,
    episodes: EpisodeSet,
    policy: WordPolicy,
    seed: int,
    rule: SingleRule | None,
    progress: Callable[[int], object] | None,
) -> dict[str, list[dict[str, Any]]]:
    """Edit every prompt in each way and have it judged: what the env says at each episode's end, by arm."""
    reward = bench.reward(episodes)
    played: dict[str, list[dict[str, Any]]] = {"random": [], "policy": []}
    draw = torch.Generator(bench.encoder.device).manual_seed(seed)
    players: dict[str, tuple[torch.nn.Module, torch.Generator | None]] = {
        "random": (UniformPolicy(), draw),
        "policy": (policy.eval(), None),
    }
    for start in range(0, len(episodes), _ROWS):
        rows = range(start, min(start + _ROWS, len(episodes)))
        env = bench.env(len(rows), episodes, reward, policy)
        for arm, (player, generator) in players.items():
            played[arm] += play(env, player, rows, generator).infos
            if progress is not None:
                progress(len(rows))
    if rule is None:
        return played
    problem = Problem(blind(episodes), bench.encoder, None, bench.options.n_edits)
    edits = [deletions(episode, slots) for episode, slots in zip(episodes, rule.refine(problem), strict=True)]
    prompts = list(apply_edits(episodes, range(len(episodes)), edits))
    outcomes = reward(range(len(episodes)), prompts)
    replies = outcomes.texts.reply if outcomes.texts is not None else [""] * len(prompts)
    played[RULE] = [
        {"llm_error": error} if error else {"prompt": prompt, "edits": each, "reply": reply}
        for error, prompt, each, reply in zip(outcomes.errors, prompts, edits, replies, strict=True)
    ]
    if progress is not None:
        progress(len(episodes))
    return played


def _f1(bench: RunModels) -> Callable[[Sequence[str], Sequence[str]], np.ndarray]:
    return lambda texts, references: bench.scorer.score(texts, references).f1.double().numpy()


def _score(bench: RunModels, metrics: ReplyMetrics, prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """Return every metric of the replies to every prompt, shape (N,) each: means over its samples."""
    samples = range(bench.options.n_samples)
    asked = [bench.llm.ask([Request(prompt, sample) for prompt in prompts]) for sample in samples]  # all of them kept
    each = []
    for replies in map(all_or_error, asked):
        cut = [reply.finish_reason == "length" for reply in replies]
        each.append(metrics([reply.text for reply in replies], prompts, cut))
    return {name: np.mean([scores[name] for scores in each], axis=0) for name in METRICS}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def summarise(scores: dict[str, dict[str, np.ndarray]], seed: int) -> dict[str, Any]:
    """Mean of every metric by arm and control, and intervals of differences in F1 and margin, paired by patient.

    An interval, ``ci95``, is None where there are too few patients for one.
    """
    summary: dict[str, Any] = {
        arm: {name: _plain(float(np.mean(values[name]))) for name in METRICS} for arm, values in scores.items()
    }
    pairs = {arm: (arm, "keep_all") for arm in scores if arm != "keep_all"}
    pairs |= {f"policy_over_{arm}": ("policy", arm) for arm in ("random", "echo", RULE) if arm in scores}
    for metric, key in (("bertscore_f1", "delta"), ("margin", "margin_delta")):
        values = {arm: scores[arm][metric].astype(float) for arm in scores}
        summary[key] = {}
        for name, (first, second) in pairs.items():
            difference = values[first] - values[second]
            if np.isfinite(difference).all():
                interval = mean_interval(difference, np.random.default_rng(seed))
                bounds = None if interval.low is None else [interval.low, interval.high]
                summary[key][name] = {"mean": interval.mean, "ci95": bounds}
    return summary


#: The table's columns: metric, head, what a value is multiplied by, decimals.
_COLUMNS = (
    ("bleu4", "BLEU-4", 100, 1), ("rougeL", "R-L", 100, 1), ("bertscore_precision", "P", 100, 1),
    ("bertscore_recall", "R", 100, 1), ("bertscore_f1", "F1", 100, 2), ("margin", "margin", 100, 2),
    ("diagnosis_named", "right", 100, 0), ("wrong_diagnosis_named", "wrong", 100, 0), ("copy", "copy", 100, 1),
    ("words", "words", 1, 0), ("cut", "cut", 100, 0),
)  # fmt: skip

_NAMES = {
    "keep_all": "before (keep all)",
    "random": "random deletion",
    RULE: "best single rule",
    "policy": "after (policy)",
}


def table(evaluation: dict[str, Any]) -> str:
    """Return the before / after table with the controls as text, and the changes of F1 below.

    Raises:
        ValueError: The evaluation has no echo beside the policy.
    """
    summary = evaluation["summary"]
    if "echo" not in summary:
        raise ValueError("this evaluation has no echo beside the policy: make it again with `pmlm evaluate`")
    missing = len(evaluation["without_reply"])
    left_out = f", {missing} more left out for want of a reply" if missing else ""
    lines = [f"{evaluation['n_patients']} held-out patients{left_out}; all figures but words in %, margin in points"]
    lines += [" " * 20 + "".join(f"{head:>8}" for _, head, _, _ in _COLUMNS) + f"{'edits':>7}"]
    for arm in (*_NAMES, *CONTROLS):
        if arm not in summary:
            continue
        cells = (
            "       -" if summary[arm][metric] is None else f"{scale * summary[arm][metric]:8.{digits}f}"
            for metric, _, scale, digits in _COLUMNS
        )
        name = _NAMES.get(arm, f"control: {arm}")
        lines.append(f"{name:20}" + "".join(cells) + f"{summary['edits'].get(arm, '-'):>7}")
    lines += ["", *(f"{name}: {what}." for name, what in CONTROLS.items() if name in summary)]
    lines += ["", "Change of BERTScore F1 in points, mean and 95 % interval, paired by patient:"]
    labels = {
        "random": "random - keep all",
        "policy": "policy - keep all",
        "policy_over_random": "policy - random",
        "echo": "echo - keep all",
        "policy_over_echo": "policy - echo",
        RULE: "rule - keep all",
        f"policy_over_{RULE}": "policy - rule (personal)",
    }
    n, deltas = evaluation["n_patients"], summary["delta"]
    lines += [_difference(label, deltas[name], n) for name, label in labels.items() if name in deltas]
    if "policy" in summary["margin_delta"]:
        lines += ["", "Change of the margin in points:"]
        lines.append(_difference("policy - keep all", summary["margin_delta"]["policy"], n))
    return "\n".join(lines)


def _difference(label: str, delta: dict[str, Any], n_patients: int) -> str:
    told = Interval(100 * delta["mean"], *(100 * bound for bound in delta["ci95"] or ()))
    if told.low is None:
        return f"{label:24} {told.mean:+6.2f}  too few patients ({n_patients}) for an interval"
    return f"{label:24} {told.mean:+6.2f}  [{told.low:+.2f}, {told.high:+.2f}]  {told.verdict}"
