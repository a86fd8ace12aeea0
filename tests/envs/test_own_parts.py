"""PMLM-v0 with a reward, an encoder and an LLM of one's own, by name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from pmlm_env.cohort import Schema, write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.envs.options import PMLMOptions
from pmlm_env.envs.shared_models import SharedModels
from pmlm_env.rewards.delta import DeltaReward
from tests.commands import pmlm
from tests.own_parts import BrokenReward, WordCount
from tests.standins import EchoLLM, make_episodes

KEY = "sk-abcdefghijklmnop1234"


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    """Arguments that name own parts only."""
    make_episodes(4, n_words=8).save(tmp_path / "episodes")
    return {
        "episodes": str(tmp_path / "episodes"),
        "llm": "tests.own_parts:Shout",
        "llm_kwargs": {"end": " rest rest"},
        "encoder": "tests.own_parts:LetterEncoder",
        "encoder_kwargs": {"size": 6},
        "reward": "tests.own_parts:WordCount",
        "reward_kwargs": {"word": "rest", "weight": 0.5},
        "n_edits": 2,
    }


def _refused(message: str, **given: Any) -> None:
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
            make("PMLM-v0", **given)
        assert KEY not in str(caught.value)


def _played(env: gym.Env) -> list[Any]:
    """Rewards, scores, replies and embeddings of one episode of each patient."""
    out: list[Any] = []
    for episode in range(4):
        observation, info = env.reset(options={"episode": episode})
        over = False
        while not over:
            observation, reward, terminated, truncated, info = env.step(np.int64(info["action_mask"].argmax()))
            over = terminated or truncated
        out.append((reward, info["score"], info["initial_score"], info["reply"], observation["embeddings"].tobytes()))
    return out


def test_a_reward_of_ones_own_scores_the_replies_of_an_llm_of_ones_own(own: dict[str, Any]) -> None:
    env = gym.make("PMLM-v0", **{**own, "reward": "tests.own_parts:WordCount", "reward_kwargs": {"word": "mark2*"}})
    episode = env.unwrapped.task.episodes[0]  # type: ignore[attr-defined]
    env.reset(options={"episode": 0})
    for slot in (1, 0):
        *_, terminated, _, info = env.step(np.int64(slot))
    assert terminated
    left = episode.words[2:]
    assert info["reply"] == " ".join(left).upper() + " rest rest"
    assert info["initial_score"] == episode.words.count("mark2*")
    assert info["score"] == left.count("mark2*")


def test_a_reward_sees_the_episode_of_each_reply(own: dict[str, Any]) -> None:
    env = gym.make("PMLM-v0", **{**own, "reward": "tests.own_parts:LabelLength", "reward_kwargs": {}})
    assert [score for _, score, *_ in _played(env)] == [len("normal")] * 4


def test_observations_are_those_of_the_encoder_of_ones_own(own: dict[str, Any]) -> None:
    env = gym.make("PMLM-v0", **own, observation="embeddings")
    observation, _ = env.reset(options={"episode": 1})
    words = env.unwrapped.task.episodes[1].words  # type: ignore[attr-defined]
    assert observation["embeddings"].shape == (8, 6)
    assert observation["embeddings"].sum(axis=1).tolist() == [len(word) for word in words]


def test_the_scalar_and_the_vector_env_agree(own: dict[str, Any]) -> None:
    alone = _played(gym.make("PMLM-v0", **own))
    vector = gym.make_vec("PMLM-v0", num_envs=4, **own)
    _, info = vector.reset(options={"episode": np.arange(4)})
    for _ in range(2):
        actions = info["action_mask"].argmax(axis=1)
        _, rewards, _, _, info = vector.step(actions)
    final = info["final_info"]
    assert rewards.tolist() == [each[0] for each in alone]
    assert final["score"].tolist() == [each[1] for each in alone] == [1.0] * 4
    assert final["reply"].tolist() == [each[3] for each in alone]


def test_an_env_made_from_its_own_serialized_spec_is_the_same(own: dict[str, Any]) -> None:
    env = gym.make("PMLM-v0", **own)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert _played(again) == _played(env)
    assert again.unwrapped.task.encoder is env.unwrapped.task.encoder  # type: ignore[attr-defined]


def test_worker_processes_make_the_parts_by_their_names(own: dict[str, Any]) -> None:
    options = {"context": "spawn", "autoreset_mode": AutoresetMode.SAME_STEP}
    vector = gym.make_vec("PMLM-v0", num_envs=2, vectorization_mode="async", vector_kwargs=options, **own)
    try:
        vector.reset(options={"episode": 2})
        for slot in (1, 0):
            _, rewards, terminated, _, info = vector.step(np.array([slot, slot]))
    finally:
        vector.close()
    assert terminated.all()
    assert info["final_info"]["score"].tolist() == [1.0, 1.0]
    assert rewards.tolist() == [0.0, 0.0]


def test_parts_are_shared_by_name_and_arguments(own: dict[str, Any]) -> None:
    models = SharedModels()
    one, same = (PMLMOptions(**own).task(models) for _ in range(2))
    other = PMLMOptions(**{**own, "encoder_kwargs": {"size": 7}, "reward_kwargs": {"word": "a"}}).task(models)
    rewards = [task.reward for task in (one, same, other)]
    assert all(isinstance(reward, DeltaReward) for reward in rewards)
    first, second, third = rewards
    assert one.encoder is same.encoder
    assert first.reward is second.reward  # type: ignore[attr-defined]
    assert first.initial is second.initial  # type: ignore[attr-defined]
    assert one.encoder is not other.encoder
    assert first.initial is not third.initial  # type: ignore[attr-defined]
    assert first.llm is third.llm  # type: ignore[attr-defined]


@pytest.mark.parametrize("word", ["a\0b", "folder"])
def test_a_text_among_ones_own_rewards_arguments_is_no_path(
    own: dict[str, Any], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = SharedModels()
    own["reward_kwargs"] = {"word": word}
    one = PMLMOptions(**own).task(models)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    assert PMLMOptions(**own).task(models).reward.reward is one.reward.reward  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"scorer": "minilm2"}, "scorer has no effect with reward='tests.own_parts:WordCount': leave it out"),
        ({"scorer_layer": 3, "scorer_idf": True}, "scorer_layer, scorer_idf has no effect with reward="),
        ({"temperature": 0.5}, "temperature has no effect with the LLM tests.own_parts:Shout: use llm_kwargs"),
        ({"max_new_tokens": 5}, "max_new_tokens has no effect with the LLM tests.own_parts:Shout: use llm_kwargs"),
        ({"base_url": "http://localhost"}, "base_url has no effect with the LLM tests.own_parts:Shout: use llm_kwargs"),
        (
            {"chat_template_kwargs": {"a": 1}},
            "chat_template_kwargs has no effect with the LLM tests.own_parts:Shout: use llm_kwargs",
        ),
        ({"llm": "responder"}, "llm_kwargs has no effect with 'responder': it is for an LLM of your own; leave it out"),
        ({"reward": "bertscore"}, "reward_kwargs has no effect with the reward bertscore: use scorer, scorer_layer"),
        ({"encoder": "minilm"}, "encoder_kwargs has no effect with the model minilm: it is for once and classes"),
        (
            {"reward": "wordcount"},
            "there is no reward 'wordcount': use bertscore, margin, guarded, or package",
        ),
        ({"reward": "tests.own_parts:NoScore", "reward_kwargs": {}}, "the reward tests.own_parts:NoScore lacks score"),
        ({"reward_kwargs": {}}, "the reward tests.own_parts:WordCount does not take these arguments: missing a requir"),
        ({"reward_kwargs": {"word": KEY}}, "reward_kwargs: word contains what looks like a key: put it into the env"),
        ({"reward_kwargs": {"word": object()}}, "reward_kwargs: word is of type object: use JSON values"),
        ({"reward_kwargs": [1]}, "reward_kwargs is of type list: give a dictionary here"),
        ({"reward_kwargs": "{"}, "reward_kwargs is not JSON, at character 2: give an object"),
        ({"encoder": "tests.own_parts:NoScore", "encoder_kwargs": {}}, "the encoder tests.own_parts:NoScore lacks enc"),
        ({"encoder_kwargs": {"size": 0}}, "the encoder tests.own_parts:LetterEncoder has no hidden_size"),
    ],
)
def test_what_has_no_effect_or_does_not_fit_is_refused(own: dict[str, Any], more: dict[str, Any], message: str) -> None:
    _refused(message, **{**own, **more})


@pytest.mark.parametrize(("returns", "what"), [("numpy", "ndarray"), ("narrow", "torch.float32 (1, 8, 1)")])
def test_embeddings_of_another_kind_are_one_error_that_names_the_encoder(
    own: dict[str, Any], returns: str, what: str
) -> None:
    env = gym.make("PMLM-v0", **{**own, "encoder_kwargs": {"size": 6, "returns": returns}})
    message = f"the encoder tests.own_parts:LetterEncoder returned {what}, not a torch.float32 tensor (1, 8, 6)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("deleted", "returned numbers other than zero where no word is left: policies tell by the zeros which words"),
        ("elsewhere", "returned a tensor on cpu, but its device is meta"),
    ],
)
def test_embeddings_that_would_mislead_a_policy_are_one_error_that_names_the_encoder(
    own: dict[str, Any], returns: str, message: str
) -> None:
    env = gym.make("PMLM-v0", **{**own, "encoder_kwargs": {"size": 6, "returns": returns}, "max_words": 9})
    with pytest.raises(ValueError, match=f"^{re.escape(f'the encoder tests.own_parts:LetterEncoder {message}')}"):
        env.reset(seed=0)


@pytest.mark.parametrize("returns", ["gradient", "inference", "same"])
def test_embeddings_are_new_tensors_that_a_network_can_learn_from(own: dict[str, Any], returns: str) -> None:
    options = {**own, "encoder_kwargs": {"size": 6, "returns": returns}, "array_type": "torch"}
    vector, plain = (gym.make_vec("PMLM-v0", num_envs=2, **each) for each in (options, own))
    first, second = [], []
    for env, seen in ((vector, first), (plain, second)):
        seen.append(env.reset(options={"episode": [0, 1]})[0]["embeddings"])
        seen.append(env.step(np.array([1, 2]))[0]["embeddings"])
    assert [each.tolist() for each in first] == [each.tolist() for each in second]
    assert not first[0].requires_grad
    weights = torch.ones(6, requires_grad=True)
    (first[0] * weights).sum().backward()
    assert weights.grad is not None


def test_a_class_that_needs_the_device_gets_it(own: dict[str, Any]) -> None:
    needs = {"encoder": "tests.own_parts:Needs", "encoder_kwargs": {"size": 3}, "reward": "tests.own_parts:Needs"}
    env = gym.make("PMLM-v0", **{**own, **needs, "reward_kwargs": {}, "device": "cpu"})
    assert env.reset(seed=0)[0]["embeddings"].shape == (8, 3)


@pytest.mark.parametrize(
    ("returns", "what"),
    [
        ("column", "numbers of shape (2, 1)"),
        ("too few", "numbers of shape (1,)"),
        ("one number", "numbers of shape ()"),
        ("nan", "nan at index 0"),
        ("infinity", "inf at index 1"),
        ("texts", "values of type list that are not numbers"),
        ("nothing", "values of type NoneType that are not numbers"),
        ("missing", "values of type list that are not numbers"),
        ("gradient", "values of type Tensor that are not numbers"),
    ],
)
def test_a_bad_score_is_one_error_that_names_the_class(own: dict[str, Any], returns: str, what: str) -> None:
    name = "tests.own_parts:BrokenReward"
    env = gym.make("PMLM-v0", **{**own, "reward": name, "reward_kwargs": {"returns": returns}, "n_edits": 1})
    env.reset(options={"episode": 0})
    message = f"the reward {name} returned {what}: its method score should return one finite number for each of 2"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        env.step(np.int64(0))


def test_a_live_reward_is_checked_like_a_named_one() -> None:
    reward = DeltaReward(make_episodes(2), EchoLLM(), BrokenReward("nan"))
    with pytest.raises(ValueError, match=r"^the reward BrokenReward returned nan at index 0"):
        reward([0], ["a prompt"])
    assert DeltaReward(make_episodes(2), EchoLLM(), WordCount("a"))([0], ["a prompt"]).score.tolist() == [1.0]


def test_an_exception_in_a_reward_is_not_swallowed(own: dict[str, Any]) -> None:
    more = {"reward": "tests.own_parts:BrokenReward", "reward_kwargs": {"returns": ""}, "n_edits": 1}
    env = gym.make("PMLM-v0", **{**own, **more})
    env.reset(options={"episode": 0})
    with pytest.raises(KeyError, match="a mistake in the user's class"):
        env.step(np.int64(0))


def test_a_class_gets_the_device_only_if_it_takes_one(own: dict[str, Any]) -> None:
    env = gym.make("PMLM-v0", **own, device="cpu")
    assert env.unwrapped.task.encoder._encoder.asked_device == "cpu"  # type: ignore[attr-defined]


def _with_template(folder: Path, text: str) -> None:
    """Add to episodes what ``pmlm prepare`` keeps of their template."""
    (folder / "pipeline").mkdir()
    Schema.load("obstetric").save(folder / "pipeline" / "schema.json")
    (folder / "pipeline" / "template.txt").write_text(text, encoding="utf-8")


def test_prompts_with_values_of_records_go_to_an_llm_elsewhere_only_if_the_user_allows_it(own: dict[str, Any]) -> None:
    _with_template(Path(own["episodes"]), "background: Aged {age}.\ninstruction: {labs} {values:9} Write.")
    _refused(
        f"the prompts in {own['episodes']} contain values of the patients' records (labs, values, age), and the LLM is "
        "on another machine: allow it with send_values, or make prompts without them with `pmlm prepare --template`",
        **own,
    )
    assert gym.make("PMLM-v0", **own, send_values=True).reset(seed=0)
    here = {**own, "llm": "responder"}
    del here["llm_kwargs"]
    assert gym.make("PMLM-v0", **here).reset(seed=0)


def test_prompts_without_values_of_records_need_no_permission(own: dict[str, Any]) -> None:
    _with_template(Path(own["episodes"]), "self: {predicted}, {probabilities}, {peers} of {k}, {peers:likeness}.")
    assert gym.make("PMLM-v0", **own).reset(seed=0)


def test_prompts_whose_template_is_lost_are_not_sent_elsewhere(own: dict[str, Any]) -> None:
    _with_template(Path(own["episodes"]), "self: {predicted}.")
    lost = Path(own["episodes"], "pipeline", "template.txt")
    lost.unlink()
    _refused(f"{lost} is missing, which says whether the prompts contain values of the patients' records: ", **own)


def test_a_reward_and_an_encoder_that_change_what_they_get_do_not_change_the_episodes(own: dict[str, Any]) -> None:
    changing = {"encoder": "tests.own_parts:Changing", "reward": "tests.own_parts:Changing"}
    env = gym.make("PMLM-v0", **{**own, **changing, "encoder_kwargs": {}, "reward_kwargs": {}})
    _, info = env.reset(seed=0)
    before = info["action_mask"].sum()
    _, _, _, _, info = env.step(np.int64(info["action_mask"].argmax()))
    assert info["action_mask"].sum() == before - 1
    _, _, terminated, _, info = env.step(np.int64(info["action_mask"].argmax()))
    assert terminated
    assert [info["score"], info["reply"].split()[-1]] == [0.5, "rest"]
    vector = env.unwrapped.task.episodes[0].vector
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1.0


def test_prompts_with_values_that_are_copied_without_their_pipeline_are_not_sent_elsewhere(
    own: dict[str, Any], tmp_path: Path
) -> None:
    write_cohort(simulate_cohort(60, seed=1), tmp_path / "cohort")
    quick = ("--predictor", "logistic", "--patient-encoder", "summaries", "--n-folds", 2, "--max-validation", 0)
    for template in ("raw", "default"):
        made, copied = tmp_path / f"made {template}", tmp_path / template
        assert pmlm("prepare", "--cohort", tmp_path / "cohort", "--out", made, "--template", template, *quick) == 0
        copied.mkdir()
        for name in ("episodes.jsonl", "vectors.safetensors", "labels.json"):
            shutil.copy(made / name, copied)
    options = {**own, "episodes": str(tmp_path / "raw")}
    _refused(
        f"the prompts in {tmp_path / 'raw'} contain values of the patients' records (labs), and the LLM is", **options
    )
    assert gym.make("PMLM-v0", **options, send_values=True).reset(seed=0)
    assert gym.make("PMLM-v0", **{**own, "episodes": str(tmp_path / "default")}).reset(seed=0)
