from __future__ import annotations

import base64
import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.utils import obs_as_tensor

from agents.sb3 import MaskableWordActorCriticPolicy, PMLMVecEnv, WordFeatures
from benchmarks.buffers import index_buffer_mib
from pmlm_env import PMLMLiteVectorEnv


def _both_forms(steps: int = 3) -> list[tuple[PMLMVecEnv, dict[str, torch.Tensor]]]:
    """The same states of four envs, in the middle of episodes, in both forms, as a features extractor gets them."""
    out = []
    for observation in ("embeddings", "index"):
        env = PMLMVecEnv(PMLMLiteVectorEnv(4, observation=observation))
        env.seed(0)
        seen = env.reset()
        for slot in range(steps):
            seen = env.step(np.arange(4) + 4 * slot)[0]
        out.append((env, preprocess_obs(obs_as_tensor(seen, torch.device("cpu")), env.observation_space)))
    return out


def _unpacked(path: Path) -> bytes:
    """All that a model's file holds, the pickled parts decoded."""
    data = json.loads(zipfile.ZipFile(path).read("data"))
    pickled = [entry[":serialized:"] for entry in data.values() if isinstance(entry, dict) and ":serialized:" in entry]
    return b"".join(base64.b64decode(text) for text in pickled) + json.dumps(data).encode()


def _features(env: PMLMVecEnv, **more: Any) -> WordFeatures:
    torch.manual_seed(0)
    return WordFeatures(env.observation_space, env.env.task, **more)


def test_both_forms_lead_to_the_same_embeddings_and_features() -> None:
    (env, seen), (index_env, index_seen) = _both_forms()
    features, index_features = _features(env), _features(index_env)
    for a, b in zip(features.embed(seen), index_features.embed(index_seen), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    made = features(seen)
    assert made.shape == (4, features.features_dim)
    torch.testing.assert_close(made, index_features(index_seen), rtol=0, atol=0)


def test_observations_from_a_buffer_have_one_more_dimension_and_mean_the_same() -> None:
    _, (env, seen) = _both_forms()
    features = _features(env)
    from_buffer = {**seen, "episode": seen["episode"][:, None]}
    assert from_buffer["episode"].shape == (4, 1, 256)
    torch.testing.assert_close(features(from_buffer), features(seen), rtol=0, atol=0)


def test_features_are_zero_exactly_where_no_word_is_left() -> None:
    (env, seen), (_, index_seen) = _both_forms()
    made = _features(env, width=8)(seen).unflatten(1, (-1, 8))
    left = index_seen["kept"] != 0
    assert torch.equal(made.any(dim=-1), left)
    assert torch.equal(made[..., -1], left.float())


def test_it_is_the_mlp_of_the_concatenation_of_word_mean_and_patient() -> None:
    (env, seen), _ = _both_forms()
    features = _features(env, width=8, hidden=16)
    row, slot = 2, 20
    words = seen["embeddings"][row][seen["embeddings"][row].any(dim=1)]
    parts = [seen["embeddings"][row, slot], words.mean(dim=0), seen["patient"][row]]
    whole = torch.cat([(part - part.mean()) / (part.var(correction=0) + 1e-5).sqrt() for part in parts])
    first = torch.cat([features.word.weight, features.context.weight], dim=1) @ whole + features.word.bias
    expected = torch.relu(features.body[1](torch.relu(first)))
    torch.testing.assert_close(features(seen).unflatten(1, (-1, 8))[row, slot, :-1], expected)


def test_positions_tell_the_same_word_in_two_slots_apart() -> None:
    (env, seen), _ = _both_forms()
    seen["embeddings"][:, 7] = seen["embeddings"][:, 20]
    for positions, apart in ((False, False), (True, True)):
        features = _features(env, width=8, positions=positions)
        if positions:
            torch.nn.init.normal_(features.positions)
        made = features(seen).unflatten(1, (-1, 8))
        assert torch.equal(made[:, 7], made[:, 20]) != apart
        assert torch.equal(made.any(dim=-1), seen["embeddings"].any(dim=-1))


def test_inputs_are_normalized_if_so_wished_and_only_then() -> None:
    (env, seen), _ = _both_forms()
    longer = {**seen, "embeddings": 3 * seen["embeddings"], "patient": 3 * seen["patient"]}
    for normalize in (True, False):
        features = _features(env, normalize=normalize)
        assert torch.allclose(features(seen), features(longer), atol=0.01) == normalize


def test_the_task_is_shared_by_deep_copies_and_is_no_part_of_the_state() -> None:
    _, (env, seen) = _both_forms()
    features = _features(env)
    twin = copy.deepcopy(features)
    assert twin._task.value is env.env.task
    torch.testing.assert_close(twin(seen), features(seen), rtol=0, atol=0)
    assert set(features.state_dict()) == {
        "word.weight", "word.bias", "context.weight", "body.1.weight", "body.1.bias"
    }  # fmt: skip


def test_a_saved_model_acts_as_before_with_or_without_the_patients_in_the_file(tmp_path: Path) -> None:
    env = PMLMVecEnv(PMLMLiteVectorEnv(2, observation="index"))
    settings = {"features_extractor_kwargs": {"task": env.env.task}}
    options = {"n_steps": 8, "batch_size": 16, "policy_kwargs": settings, "device": "cpu"}
    model = MaskablePPO(MaskableWordActorCriticPolicy, env, **options).learn(16)
    seen, masks = env.reset(), env.env.action_masks()
    expected = model.predict(seen, action_masks=masks, deterministic=True)[0].tolist()
    model.save(tmp_path / "whole.zip")
    model.save(tmp_path / "lean.zip", exclude=["policy_kwargs"])
    whole = MaskablePPO.load(tmp_path / "whole.zip", device="cpu")
    lean = MaskablePPO(MaskableWordActorCriticPolicy, env, **options)
    lean.set_parameters(tmp_path / "lean.zip", device="cpu")
    for again in (whole, lean):
        assert again.predict(seen, action_masks=masks, deterministic=True)[0].tolist() == expected
    reference = env.env.task.episodes[0].reference
    contents = [_unpacked(tmp_path / name) for name in ("whole.zip", "lean.zip")]
    assert [reference.encode() in content for content in contents] == [True, False]


def test_what_does_not_fit_is_refused() -> None:
    env = PMLMVecEnv(PMLMLiteVectorEnv(1, observation="index"))
    other = PMLMVecEnv(PMLMLiteVectorEnv(1, split="test")).env.task
    with pytest.raises(ValueError, match="pass policy_kwargs="):
        WordFeatures(env.observation_space)
    with pytest.raises(ValueError, match="the task has 64 episodes of 49 slots, the observation space 256 of 49"):
        WordFeatures(env.observation_space, other)
    with pytest.raises(ValueError, match="width is 1"):
        WordFeatures(env.observation_space, env.env.task, width=1)
    with pytest.raises(ValueError, match="takes that of PMLM-v0"):
        WordFeatures(env.action_space)  # type: ignore[arg-type]


def test_a_rollout_of_2048_steps_of_eight_envs_in_index_form_fits_into_64_mib() -> None:
    assert index_buffer_mib() < 64
