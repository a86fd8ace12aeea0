"""The registry of agents: their default settings, and functions that create or load an agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as shortened
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from agents.baselines.config import (
    NoConfig,
    RandomPConfig,
    SelfInformationConfig,
    SingleRuleConfig,
    SurrogateConfig,
    TaskSearchConfig,
)
from agents.policy_gradient.config import LexiconConfig, NetworkConfig
from agents.q_learning.config import DoubleDQNConfig, SoftQConfig
from agents.sb3.config import A2CConfig, DQNConfig, PPOConfig, QRDQNConfig
from agents.settings import from_plain, with_settings

if TYPE_CHECKING:
    from agents.base import Agent

BenchmarkEnv = Literal["lite", "real"]

#: The default agent: the masked categorical policy over BERT embeddings and the patient vector.
DEFAULT = "leave-one-out"

#: The agent that applies one rule to all prompts; any gain over it comes from personalization.
RULE = "single-rule"


@dataclass(frozen=True)
class Entry:
    """An agent of the registry.

    Attributes:
        where: Its class, as "module:Class"; imported only when an agent is created, because most agents need torch.
        config: Its default settings.
        lite: Settings that differ on PMLMLite-v0, whose embeddings, unlike BERT's, do not encode a word's position,
            and on which all networks learn faster without normalized inputs.
    """

    where: str
    config: Any
    lite: Mapping[str, Any] = field(default_factory=dict)


_NETWORK = {"positions": True, "normalize": False}
_GROUP = NetworkConfig()

AGENTS: Mapping[str, Entry] = MappingProxyType(
    {
        "lexicon": Entry("agents.policy_gradient.agent:LexiconAgent", LexiconConfig()),
        "leave-one-out": Entry("agents.policy_gradient.agent:NetworkAgent", _GROUP, _NETWORK),
        "actor-critic": Entry(
            "agents.policy_gradient.agent:NetworkAgent",
            replace(_GROUP, patients=32, rollouts=1, baseline="critic"),
            _NETWORK,
        ),
        # As published, except that an update uses 32 rollouts instead of the whole training set.
        "reinforce": Entry(
            "agents.policy_gradient.agent:NetworkAgent",
            NetworkConfig(
                patients=32,
                rollouts=1,
                baseline="none",
                entropy=0.0,
                clip_norm=None,
                epochs=1,
                scale_advantages=False,
                hidden=256,
                dropout=0.4,
                normalize=False,
            ),
            _NETWORK,
        ),
        "sparsemax": Entry(
            "agents.policy_gradient.agent:NetworkAgent", replace(_GROUP, distribution="sparsemax"), _NETWORK
        ),
        "q-dqn": Entry("agents.q_learning.agent:DoubleDQN", DoubleDQNConfig(), _NETWORK),
        "q-soft": Entry("agents.q_learning.agent:SoftQ", SoftQConfig(), _NETWORK),
        "maskable-ppo": Entry("agents.sb3.agents:MaskablePPOAgent", PPOConfig(), _NETWORK),
        "ppo": Entry("agents.sb3.agents:PPOAgent", PPOConfig(), _NETWORK),
        "a2c": Entry("agents.sb3.agents:A2CAgent", A2CConfig(), _NETWORK),
        "dqn": Entry("agents.sb3.agents:DQNAgent", DQNConfig(), _NETWORK),
        "qrdqn": Entry("agents.sb3.agents:QRDQNAgent", QRDQNConfig(), _NETWORK),
        "surrogate": Entry("agents.baselines.surrogate:Surrogate", SurrogateConfig()),
        "single-rule": Entry("agents.baselines.single_rule:SingleRule", SingleRuleConfig()),
        "task-grips": Entry("agents.baselines.task_search:TaskGrips", TaskSearchConfig()),
        "task-genetic": Entry("agents.baselines.task_search:TaskGenetic", TaskSearchConfig()),
        "random-p": Entry("agents.baselines.controls:RandomP", RandomPConfig()),
        "random-n": Entry("agents.baselines.controls:RandomN", NoConfig()),
        "keep-all": Entry("agents.baselines.controls:KeepAll", NoConfig()),
        "self-information-low": Entry(
            "agents.baselines.self_information:LeastSurprising", SelfInformationConfig(), {"model": "bigram"}
        ),
        "self-information-high": Entry(
            "agents.baselines.self_information:MostSurprising", SelfInformationConfig(), {"model": "bigram"}
        ),
    }
)


def entry(name: str) -> Entry:
    """Return an agent's registry entry.

    Raises:
        ValueError: There is no agent of that name.
    """
    if name not in AGENTS:
        raise ValueError(f"there is no agent {shortened(name)}: use one of {', '.join(AGENTS)}")
    return AGENTS[name]


def settings_of(name: str, env: BenchmarkEnv = "real", changes: Mapping[str, Any] | None = None) -> Any:
    """Return an agent's default settings for an env, with ``changes`` applied.

    Raises:
        ValueError: There is no such agent, or it has no such setting.
    """
    known = entry(name)
    config = replace(known.config, **known.lite) if env == "lite" else known.config
    try:
        return with_settings(config, changes or {})
    except ValueError as error:
        raise ValueError(f"settings of {name}: {error}") from None


def class_of(name: str) -> type[Agent]:
    """Import an agent's class.

    Raises:
        ValueError: There is no agent of that name.
    """
    from importlib import import_module

    module, _, attribute = entry(name).where.partition(":")
    return getattr(import_module(module), attribute)


def make(name: str, settings: Any = None, seed: int = 0) -> Agent:
    """Create an untrained agent.

    Args:
        name: The agent's name; see ``AGENTS``.
        settings: An instance of its ``Config``; its defaults on ``PMLM-v0`` if None.
        seed: Seed for all randomness.

    Raises:
        ValueError: There is no agent of that name.
    """
    agent = class_of(name)(settings_of(name) if settings is None else settings, seed)
    agent.name = name
    return agent


def load(source: str | Path, device: str = "cpu", revision: str | None = None) -> Agent:
    """Load a saved agent on any device, without unpickling anything or running code from the folder.

    Args:
        source: A folder that ``Agent.save`` wrote, such as ``runs/mine/checkpoint``, a folder that ``pmlm publish``
            wrote, or the name of a repository on the Hugging Face hub.
        device: The device for its networks.
        revision: The repository's branch, tag, or commit.

    Raises:
        ValueError: There is no such folder or repository, or a file is missing, damaged, from another version, or
            describes an invalid agent.
        ModelError: There is no such folder.
        OSError: The hub does not respond.
    """
    from agents.base import CONFIG, WEIGHTS
    from agents.problem import Shape
    from pmlm_env.io.checked_files import file_in, read_object, read_tensors
    from pmlm_env.weights import resolve

    name = resolve(str(source))
    folder = Path(name if Path(name).is_dir() else _downloaded(name, revision))
    try:
        described, weights = file_in(folder, CONFIG), file_in(folder, WEIGHTS)
    except ValueError as error:
        raise ValueError(f"{source} is not a saved agent: {error}") from None
    content = read_object(described)
    try:
        known = {"agent": str, "settings": dict, "seed": int, "shape": dict, "learned": dict}
        if content.keys() != known.keys() or not all(type(content[key]) is kind for key, kind in known.items()):
            raise ValueError(f"it should hold {', '.join(known)}")
        kind = type(entry(content["agent"]).config)
        agent = make(content["agent"], from_plain(kind, content["settings"]), content["seed"])
        agent.shape = from_plain(Shape, content["shape"])
    except ValueError as error:
        raise ValueError(f"{described}: {error}: copy it again, or train anew") from None
    try:
        agent.restore(content["learned"], lambda shapes: read_tensors(weights, shapes), device)
    except ValueError as error:
        where = "" if str(error).startswith(str(weights)) else f"{described}: "
        raise ValueError(f"{where}{error}") from None
    return agent


def _downloaded(name: str, revision: str | None) -> str:
    """Download a saved agent from the hub, and return its folder.

    Raises:
        ValueError: The hub has no such repository, or the name is not a valid repository name.
        OSError: The hub does not respond.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    from agents.base import CONFIG, WEIGHTS

    try:
        return snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS])
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError):
        raise ValueError(f"{name!r} is neither a folder nor a repository on the Hugging Face hub") from None
    except OSError as error:
        why = " ".join(str(error).split())
        raise OSError(f"{name!r} is no folder, and could not be downloaded from the hub: {why}") from None
