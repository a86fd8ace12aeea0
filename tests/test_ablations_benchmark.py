"""benchmarks.ablations: what it stores and prints, and the noise that it adds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agents import registry
from agents.benchmark.patients import patients_of
from benchmarks.ablations import VARIANTS, NoisyReward, Options, main
from pmlm_env.core.outcomes import Outcomes

pytestmark = pytest.mark.once


def test_fits_are_kept_compared_and_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lexicon.json"
    options = Options(file, ("lexicon", "lexicon, step 1"), budget=130, seeds=1)
    main(options)
    printed, kept = capsys.readouterr().out, json.loads(file.read_text())
    assert list(kept["deltas"]) == ["lexicon", "lexicon, step 1"]
    assert [[len(run) for run in runs] for runs in kept["deltas"].values()] == [[64], [64]]
    agent = registry.make("lexicon", registry.settings_of("lexicon", "lite"), seed=0)
    by_hand = patients_of("lite", "validation").deltas(agent, 130)
    assert kept["deltas"]["lexicon"] == [by_hand.round(6).tolist()]
    for name, runs in kept["deltas"].items():
        (row,) = [line for line in printed.splitlines() if line.startswith(f"| {name} |")]
        assert f"| {100 * np.mean(runs):+.2f} [" in row
    before = file.stat().st_mtime_ns
    main(options)
    assert file.stat().st_mtime_ns == before
    assert capsys.readouterr().out == printed
    with pytest.raises(ValueError, match="noise"):
        main(Options(file, ("lexicon",), budget=130, seeds=1, noise=0.4))


def test_the_variants_are_of_agents_that_accept_them() -> None:
    for name, settings in VARIANTS.values():
        for env in ("lite", "real"):
            registry.make(name, registry.settings_of(name, env, settings))


@pytest.mark.parametrize("rewards", [None, np.array([0.1, 0.2, 0.3])])
def test_noise_changes_what_is_earned_by_as_much_whenever_a_prompt_is_repeated(
    rewards: np.ndarray | None,
) -> None:
    zeros = np.zeros(3)

    def plain(indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        return Outcomes(zeros, zeros, zeros.astype(np.int64), rewards=rewards)

    noisy = NoisyReward(plain, 0.4, seed=0)
    first, again = noisy([0, 1, 0], ["a", "a", "a"]), noisy([0, 1, 0], ["a", "a", "b"])
    noise = first.delta - (0 if rewards is None else rewards)
    assert noise[0] == pytest.approx(noise[2])
    assert len({*noise.round(6)}) == 2
    assert first.delta[:2].tolist() == again.delta[:2].tolist()
    assert again.delta[2] != first.delta[2]
    many = NoisyReward(lambda indices, prompts: Outcomes(*[np.zeros(2000)] * 2, np.zeros(2000, dtype=np.int64)), 0.4, 0)
    assert many(range(2000), ["a"] * 2000).delta.std() == pytest.approx(0.4, rel=0.1)
