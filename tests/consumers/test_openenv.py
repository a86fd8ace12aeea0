"""The OpenEnv server, as a process of its own: many sessions at once earn what PMLM-v0 pays for the same edits."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import pmlm_env  # noqa: F401  registers the envs
from pmlm_env.envs.text import TextEnvs
from tests.standins import MarkedWordsReward, make_episodes, make_task

pytest.importorskip("openenv.core", reason="integrations/pmlm_openenv is not installed")

import httpx
import websockets

FOLDER = Path(__file__).parents[2] / "integrations" / "pmlm_openenv"
sys.path.insert(0, str(FOLDER.parent))

from openenv.cli._validation import validate_multi_mode_deployment, validate_running_environment  # noqa: E402
from pmlm_openenv import EditAction, PMLMClient  # noqa: E402
from pmlm_openenv.server.app import main  # noqa: E402
from pmlm_openenv.server.environment import Judge, PMLMEnvironment  # noqa: E402

N_EDITS, N_SESSIONS = 3, 64
OPTIONS: dict[str, Any] = {"llm": "responder", "n_edits": N_EDITS, "device": "cpu"}


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pmlm_openenv.server.app", *map(str, arguments)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER.parents[1]), str(FOLDER.parent)])}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the server on a free port, and return its address."""
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as out:
        command = _command("--port", 0, "--max-sessions", N_SESSIONS, "--options", json.dumps(OPTIONS))
        server = subprocess.Popen(command, stderr=out, stdout=out, env=_environment())
    try:
        yield asyncio.run(_started(server, log))
    finally:
        server.terminate()
        assert server.wait(30) in (0, -15), log.read_text()


async def _started(server: subprocess.Popen[bytes], log: Path) -> str:
    while not (found := re.search(r"running on http://(127\.0\.0\.1:\d+)", log.read_text())):
        assert server.poll() is None, log.read_text()
        await asyncio.sleep(0.1)
    return found[1]


async def _play(address: str, episode: int, slots: list[int], everybody: asyncio.Barrier) -> tuple[Any, Any]:
    """Edit one prompt while all other sessions are open, and return the first and the last result."""
    async with PMLMClient(f"ws://{address}", connect_timeout_s=120, message_timeout_s=300) as env:
        first = await env.reset(episode=episode)
        await everybody.wait()
        for slot in slots:
            last = await env.step(EditAction(numbers=[slot]))
        state = await env.state()
        assert (state.episode, state.step_count, state.finished) == (episode, len(slots), True)
        await everybody.wait()
    return first, last


def test_64_sessions_at_once_earn_what_pmlm_v0_pays_for_the_same_edits(address: str) -> None:
    env = gym.make("PMLM-v0", **OPTIONS)
    rng, n = np.random.default_rng(0), len(env.unwrapped.task.episodes)
    edits, paid = [], []
    for session in range(N_SESSIONS):
        _, info = env.reset(options={"episode": session % n})
        slots = rng.permutation(np.flatnonzero(info["action_mask"]))[:N_EDITS].tolist()
        for slot in slots:
            _, reward, terminated, _, info = env.step(np.int64(slot))
        assert terminated
        edits.append(slots)
        paid.append((reward, info["components"], info["initial_components"]))

    async def play_all() -> list[tuple[Any, Any]]:
        everybody = asyncio.Barrier(N_SESSIONS)
        return await asyncio.gather(*(_play(address, i % n, slots, everybody) for i, slots in enumerate(edits)))

    results = asyncio.run(play_all())
    shown = TextEnvs(env.unwrapped.task)()
    for session, ((first, last), (reward, components, initial)) in enumerate(zip(results, paid, strict=True)):
        assert first.observation.text == shown.reset(session % n)
        assert (first.reward, first.done, last.done, last.observation.error) == (None, False, True, "")
        assert last.reward == pytest.approx(reward, abs=1e-5)  # scores of a batch differ by rounding
        assert last.observation.components == pytest.approx(_json(components), abs=1e-5)
        assert last.observation.initial_components == pytest.approx(_json(initial), abs=1e-5)
    assert len({round(reward, 6) for reward, _, _ in paid}) > 10


def _json(components: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in components.items()}


async def _opened(address: str) -> PMLMClient:
    """Open a session; those of an earlier test are free shortly after their clients have gone."""
    async with asyncio.timeout(60):
        while True:
            client = PMLMClient(f"ws://{address}", connect_timeout_s=60)
            # A server without room says so and closes the connection, perhaps before the client has sent anything.
            with suppress(RuntimeError, websockets.ConnectionClosed):
                await client.reset()
                return client
            await client.disconnect()
            await asyncio.sleep(0.1)


def test_one_more_session_than_allowed_is_refused(address: str) -> None:
    async def crowd() -> dict[str, Any]:
        clients = [await _opened(address) for _ in range(N_SESSIONS)]
        async with websockets.connect(f"ws://{address}/ws", open_timeout=60) as socket:
            said = json.loads(await socket.recv())
        for client in clients:
            await client.disconnect()
        await (await _opened(address)).disconnect()
        return said

    assert asyncio.run(crowd())["data"]["code"] == "CAPACITY_REACHED"


async def _session(address: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Send messages as they are in a session of their own, and return the answers."""
    await (await _opened(address)).disconnect()
    async with websockets.connect(f"ws://{address}/ws", open_timeout=60) as socket:
        answers = []
        for message in messages:
            await socket.send(json.dumps(message))
            answers.append(json.loads(await socket.recv()))
        return answers


def _tool(tool: str, numbers: Any = ()) -> dict[str, Any]:
    return {"type": "step", "data": {"tool": tool, "numbers": list(numbers)}}


def test_calls_that_make_no_sense_are_answered_and_end_no_session(address: str) -> None:
    reset = {"type": "reset", "data": {"episode": 0}}
    answers = asyncio.run(
        _session(
            address,
            _tool("delete", [0]),
            {"type": "reset", "data": {"episode": -1}},
            reset,
            _tool("restore"),
            _tool("delete", range(20_000)),
            _tool("delete", [10**9]),
            _tool("finish"),
            _tool("delete", [0]),
            reset,
        )
    )
    said = [each["data"].get("message", each["data"].get("observation", {}).get("text", "")) for each in answers]
    assert "there is no prompt that may be edited: call reset" in (said[0], said[7])
    assert "there are episodes 0 to" in said[1]
    assert said[2].startswith("Words that may be deleted: up to 3.")
    assert [answers[i]["data"]["code"] for i in (3, 4)] == ["VALIDATION_ERROR"] * 2
    assert "Not deleted: 1000000000" in said[5]
    assert (said[6], answers[6]["data"]["done"]) == ("The prompt is finished.", True)
    assert answers[6]["data"]["reward"] == pytest.approx(0, abs=1e-6)  # nothing was deleted
    assert said[8] == said[2]


def test_only_the_prompt_and_scores_are_sent(address: str) -> None:
    task = gym.make("PMLM-v0", **OPTIONS).unwrapped.task
    episode = task.episodes[0]
    answers = asyncio.run(
        _session(address, {"type": "reset", "data": {"episode": 0}}, _tool("finish"), {"type": "state"})
    )
    sent = json.dumps(answers)
    assert episode.patient_id not in sent
    assert episode.reference[:40] not in sent
    assert answers[1]["data"]["observation"].keys() == {"text", "components", "initial_components", "error"}


def test_a_seed_draws_the_same_prompt_again(address: str) -> None:
    def drawn(seed: int) -> str:
        (answer,) = asyncio.run(_session(address, {"type": "reset", "data": {"seed": seed}}))
        return str(answer["data"]["observation"]["text"])

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(6)}) > 1


def test_web_pages_are_refused(address: str) -> None:
    page = {"Origin": "http://example.com"}
    assert httpx.get(f"http://{address}/health").status_code == 200
    assert httpx.get(f"http://{address}/health", headers=page).status_code == 403

    async def connect() -> None:
        async with websockets.connect(f"ws://{address}/ws", origin=page["Origin"]):
            pass

    with pytest.raises(websockets.InvalidStatus):
        asyncio.run(connect())


def test_openenvs_own_checks_pass(address: str) -> None:
    report = validate_running_environment(f"http://{address}")
    assert report["passed"], report
    assert validate_multi_mode_deployment(FOLDER)[1] == ["Missing uv.lock - run 'uv lock' to generate it"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--options", "{"], "the options are not JSON"),
        (["--options", "[]"], "should be a JSON object"),
        (["--options", '{"encoder": "minilm"}'], "encoder has no effect on a text env"),
        (["--options", '{"n_edit": 3}'], "n_edit"),
        (["--max-sessions", "0"], "--max-sessions is 0"),
    ],
)
def test_what_the_server_cannot_use_is_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pmlm-openenv", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_prompts_that_finish_while_others_are_judged_make_up_one_batch() -> None:
    task = make_task(n_edits=N_EDITS)
    reward = task.reward
    assert isinstance(reward, MarkedWordsReward)
    envs = TextEnvs(task)

    async def play() -> list[Any]:
        judge = Judge(envs)
        sessions = [PMLMEnvironment(envs, judge) for _ in range(6)]
        for episode, session in enumerate(sessions):
            await session.reset_async(episode=episode)
        return await asyncio.gather(*(session.step_async(EditAction(tool="finish")) for session in sessions))

    assert [each.reward for each in asyncio.run(play())] == [0.0] * 6
    assert sum(map(len, reward.asked)) == 6
    assert len(reward.asked) <= 2


def test_what_the_reward_raises_reaches_every_session_and_the_next_prompt_is_judged() -> None:
    episodes = make_episodes()

    class FailsOnce(MarkedWordsReward):
        def __call__(self, indices: Any, prompts: Any) -> Any:
            outcomes = super().__call__(indices, prompts)
            if len(self.asked) == 1:
                raise RuntimeError("the budget is spent")
            return outcomes

    envs = TextEnvs(make_task(episodes, reward=FailsOnce(episodes), n_edits=N_EDITS))

    async def play() -> tuple[list[Any], Any]:
        judge = Judge(envs)
        sessions = [PMLMEnvironment(envs, judge) for _ in range(3)]
        for session in sessions:
            session.reset(episode=0)
        finish = EditAction(tool="finish")
        failed = await asyncio.gather(*(each.step_async(finish) for each in sessions), return_exceptions=True)
        sessions[0].reset(episode=1)
        return failed, await sessions[0].step_async(finish)

    failed, again = asyncio.run(play())
    assert [str(each) for each in failed] == ["the budget is spent"] * 3
    assert again.reward == 0.0


def test_a_step_without_the_event_loop_earns_the_same() -> None:
    envs = TextEnvs(make_task(n_edits=N_EDITS))
    session = PMLMEnvironment(envs, Judge(envs))
    session.reset(episode=0)
    marked = [slot for slot, word in enumerate(envs.task.episodes[0].words) if "*" in word]
    assert session.step(EditAction(numbers=marked[:1])).reward == 0.0
    assert session.step(EditAction(numbers=marked[1:])).reward == pytest.approx(0.3)
    assert session.get_metadata().name == "pmlm"


def test_the_container_file_copies_what_there_is() -> None:
    lines = (FOLDER / "server" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    sources = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert sources
    assert all((FOLDER.parents[1] / name).exists() for name in sources)
