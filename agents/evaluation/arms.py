"""Before and after on held-out patients: keep-all, random deletion and the policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from agents.evaluation.bootstrap import paired_bootstrap
from agents.evaluation.metrics import diagnosis_named, text_scores, wrong_diagnosis_named
from agents.policy import MaskedCategorical, WordPolicy
from agents.rollout import play
from agents.workbench import Workbench
from pmlm_env.episodes import EpisodeSet
from pmlm_env.llm.base import Request, all_or_error

#: Most prompts edited at once.
_ROWS = 64

ARMS = ("keep_all", "random", "policy")
METRICS = (
    "bleu4", "rouge1", "rouge2", "rougeL", "bertscore_precision", "bertscore_recall", "bertscore_f1",
    "diagnosis_named", "wrong_diagnosis_named",
)  # fmt: skip


class UniformPolicy(torch.nn.Module):
    """Deletes any legal word with equal probability: the control."""

    def forward(self, observation: dict[str, torch.Tensor]) -> MaskedCategorical:
        """Return the uniform distribution over legal slots."""
        mask = observation["action_mask"]
        return MaskedCategorical(torch.zeros(mask.shape, device=mask.device), mask != 0)


def evaluate_arms(
    bench: Workbench,
    episodes: EpisodeSet,
    policy: WordPolicy,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Refine every prompt in each way, score the replies, and compare.

    A test patient's reference is read for scoring alone. The policy plays greedily; random deletion takes as many
    words.

    Args:
        bench: The models.
        episodes: Held-out patients.
        policy: Who is judged.
        seed: Draws the random deletions and the bootstrap's resamples.
        progress: Called with the number of prompts done, now and then.

    Returns:
        ``summary`` (means by arm, ``delta`` of F1 with 95 % intervals, paired by patient), ``patients``, and
        ``without_reply``, who is left out because one of her replies could not be had. The same run gives the same,
        however often it was interrupted; so what was spent stands elsewhere (``spent.json``).

    Raises:
        RuntimeError: No patient's replies are all there, so that nothing can be compared.
    """
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
    errors = {i: info["llm_error"] for arm in played for i, info in enumerate(played[arm]) if "llm_error" in info}
    if len(errors) == len(episodes):
        raise RuntimeError(f"no patient's replies are all there; the last is missing because: {errors[max(errors)]}")
    left_out = [episodes[i].patient_id for i in sorted(errors)]
    episodes = EpisodeSet([episode for i, episode in enumerate(episodes) if i not in errors])
    played = {arm: [info for i, info in enumerate(infos) if i not in errors] for arm, infos in played.items()}
    texts = {
        "keep_all": [
            {"prompt": e.prompt, "deleted": (), "reply": info["initial_reply"]}
            for e, info in zip(episodes, played["policy"], strict=True)
        ],
        **{arm: [{k: info[k] for k in ("prompt", "deleted", "reply")} for info in played[arm]] for arm in played},
    }
    scores = {arm: _score(bench, episodes, [text["prompt"] for text in texts[arm]]) for arm in ARMS}
    patients = [
        {
            "patient_id": e.patient_id,
            "label": e.label,
            "predicted": e.predicted,
            "peers": e.peers,
            "words": e.words,
            "roles": e.roles,
            "reference": e.reference,
            "arms": {arm: {**texts[arm][i], **{name: float(scores[arm][name][i]) for name in METRICS}} for arm in ARMS},
        }
        for i, e in enumerate(episodes)
    ]
    return {
        "summary": summarise(scores, seed),
        "n_patients": len(episodes),
        "without_reply": left_out,
        "models": asdict(bench.options),
        "patients": patients,
    }


def _score(bench: Workbench, episodes: EpisodeSet, prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """Return every metric of the replies to every prompt, 0 to 1, shape (N,) each: means over its samples."""
    samples = range(bench.options.n_samples)
    asked = [bench.llm.ask([Request(prompt, sample) for prompt in prompts]) for sample in samples]  # all of them kept
    each = [score_replies(bench, episodes, [reply.text for reply in all_or_error(replies)]) for replies in asked]
    return {name: np.mean([scores[name] for scores in each], axis=0) for name in METRICS}


def score_replies(bench: Workbench, episodes: EpisodeSet, replies: Sequence[str]) -> dict[str, np.ndarray]:
    """Return every metric of one reply to each patient, 0 to 1, shape (N,) each."""
    references = [e.reference for e in episodes]
    text, bert = text_scores(replies, references), bench.scorer.score(replies, references)
    pairs = list(zip(replies, (e.label for e in episodes), strict=True))
    labels = episodes.labels
    return {
        "bleu4": text.bleu4,
        "rouge1": text.rouge1,
        "rouge2": text.rouge2,
        "rougeL": text.rougeL,
        "bertscore_precision": bert.precision.numpy(),
        "bertscore_recall": bert.recall.numpy(),
        "bertscore_f1": bert.f1.numpy(),
        "diagnosis_named": np.array([diagnosis_named(r, y, labels) for r, y in pairs], dtype=float),
        "wrong_diagnosis_named": np.array(
            [wrong_diagnosis_named(r, y, episodes.labels) for r, y in pairs], dtype=float
        ),
    }


def summarise(scores: dict[str, dict[str, np.ndarray]], seed: int) -> dict[str, Any]:
    """Mean of every metric by arm, and intervals of the differences in F1, paired by patient."""
    summary: dict[str, Any] = {arm: {name: float(scores[arm][name].mean()) for name in METRICS} for arm in ARMS}
    f1 = {arm: scores[arm]["bertscore_f1"].astype(float) for arm in ARMS}
    differences = {
        "random": f1["random"] - f1["keep_all"],
        "policy": f1["policy"] - f1["keep_all"],
        "policy_over_random": f1["policy"] - f1["random"],
    }
    summary["delta"] = {}
    for name, values in differences.items():
        interval = paired_bootstrap(values, np.random.default_rng(seed))
        summary["delta"][name] = {"mean": interval.mean, "ci95": [interval.low, interval.high]}
    return summary


def table(evaluation: dict[str, Any]) -> str:
    """Return the before / after table as text, in per cent, with the deltas of F1 below."""
    heads = ("BLEU-4", "R-1", "R-2", "R-L", "P", "R", "F1", "named", "wrong")
    names = {"keep_all": "before (keep all)", "random": "random deletion", "policy": "after (policy)"}
    summary = evaluation["summary"]
    missing = len(evaluation["without_reply"])
    left_out = f", {missing} more left out for want of a reply" if missing else ""
    lines = [f"{evaluation['n_patients']} held-out patients{left_out}; all figures in %"]
    lines += [" " * 18 + "".join(f"{head:>8}" for head in heads)]
    lines += [f"{names[arm]:18}" + "".join(f"{100 * summary[arm][m]:8.2f}" for m in METRICS) for arm in ARMS]
    lines += ["", "Change of BERTScore F1 in points, mean and 95 % interval, paired by patient:"]
    labels = {"random": "random - keep all", "policy": "policy - keep all", "policy_over_random": "policy - random"}
    for name, label in labels.items():
        delta = summary["delta"][name]
        low, high = (100 * value for value in delta["ci95"])
        verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
        lines.append(f"{label:18} {100 * delta['mean']:+6.2f}  [{low:+.2f}, {high:+.2f}]  {verdict}")
    return "\n".join(lines)
