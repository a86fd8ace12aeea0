"""The registry of agents: their default settings, and functions that create or load an agent.

Besides the agents listed here, an agent may be named by the entry point of an installed package in the group
``pmlm.agents``, or as ``package.module:Class``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as shortened
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from agents.baselines.config import (
    FewShotEditorConfig,
    LLMEditorConfig,
    NoConfig,
    RandomPConfig,
    SelfInformationConfig,
    SingleRuleConfig,
    SurrogateConfig,
    TaskSearchConfig,
    TreeSurrogateConfig,
)
from agents.policy_gradient.config import LexiconConfig, NetworkConfig
from agents.q_learning.config import DoubleDQNConfig, SoftQConfig
from agents.sb3.config import A2CConfig, DQNConfig, PPOConfig, QRDQNConfig
from agents.settings import check_readable, from_plain, with_settings
from pmlm_env.registry import Registry

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
        where: Its class, as "module:Class"; a built-in one is imported only when an agent is created, because most
            agents need torch.
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
        "tree-surrogate": Entry("agents.baselines.tree_surrogate:TreeSurrogate", TreeSurrogateConfig()),
        "single-rule": Entry("agents.baselines.single_rule:SingleRule", SingleRuleConfig()),
        "phrase-rule": Entry("agents.baselines.phrase_rule:PhraseRule", SingleRuleConfig()),
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
        "llm-editor": Entry("agents.baselines.llm_editor:LLMEditor", LLMEditorConfig()),
        "llm-editor-few-shot": Entry("agents.baselines.llm_editor:FewShotLLMEditor", FewShotEditorConfig()),
    }
)

#: The agents of a benchmark unless others are named: all but those that ask an LLM themselves, which has to be chosen.
COMPARED = tuple(name for name, each in AGENTS.items() if not hasattr(each.config, "editor"))


#: Finds the class of a built-in agent, of an installed package's agent, or at ``package.module:Class``.
REGISTRY = Registry("agent", "pmlm.agents", {name: each.where for name, each in AGENTS.items()})

#: What an agent's name may consist of: it is used in results files, tables, and figures.
NAME = re.compile(r"[\w.,=+():-][\w.,=+(): -]*")


def entry(name: str, allow_import: bool = True) -> Entry:
    """Return an agent's registry entry.

    Args:
        name: A name in ``AGENTS``, the name of an installed package's agent, or ``package.module:Class``.
        allow_import: See ``class_of``.

    Raises:
        ValueError: As for ``class_of``; or the class's settings are not valid.
    """
    if name in AGENTS:
        return AGENTS[name]
    found = class_of(name, allow_import)
    try:
        return Entry(name, found.Config(), found.lite)
    except ValueError as error:
        raise ValueError(f"the agent {name}: the defaults of its Config are not valid: {error}") from None


def settings_of(name: str, env: BenchmarkEnv = "real", changes: Mapping[str, Any] | None = None) -> Any:
    """Return an agent's default settings for an env, with ``changes`` applied.

    Raises:
        ValueError: There is no such agent, or it has no such setting.
    """
    known = entry(name)
    try:
        config = with_settings(known.config, known.lite) if env == "lite" else known.config
        return with_settings(config, changes or {})
    except ValueError as error:
        raise ValueError(f"settings of {name}: {error}") from None


def class_of(name: str, allow_import: bool = True) -> type[Agent]:
    """Import an agent's class.

    Args:
        name: As for ``entry``.
        allow_import: Whether ``package.module:Class`` may be imported. False for a name out of a saved agent or a run
            folder. Agents of installed packages are imported in any case: the user installed them to be used.

    Raises:
        ValueError: There is no agent of that name, its class must not or cannot be imported, or it is not a complete
            subclass of ``Agent``.
    """
    found = REGISTRY.find(name, allow_import=allow_import)
    if name not in AGENTS and (wrong := _why_no_agent(name, found)):
        raise ValueError(f"the agent {name} cannot be used: {wrong}")
    return found


def _why_no_agent(name: str, found: Any) -> str:
    """Return why an object that others wrote is not the class of an agent; "" if it is one."""
    from agents.base import Agent

    if not NAME.fullmatch(name):
        return "its name may contain letters, digits, spaces and any of _.,=+():-"
    if not (isinstance(found, type) and issubclass(found, Agent)):
        return "it is not a subclass of agents.base.Agent"
    config = getattr(found, "Config", None)
    if config is None:
        return "it has no Config, the frozen dataclass of its settings"
    parameters = getattr(config, "__dataclass_params__", None)
    if not isinstance(config, type) or parameters is None or not parameters.frozen:
        return "its Config is not a frozen dataclass: decorate it with @dataclass(frozen=True)"
    try:
        check_readable(config)
    except ValueError as error:
        return f"its Config: {error}"
    return ""


def make(name: str, settings: Any = None, seed: int = 0) -> Agent:
    """Create an untrained agent.

    Args:
        name: The agent's name; see ``entry``.
        settings: An instance of its ``Config``; its defaults on ``PMLM-v0`` if None.
        seed: Seed for all randomness.

    Raises:
        ValueError: There is no agent of that name.
    """
    class_of(name)  # raises an error if the class is not complete
    agent = REGISTRY.make(name, settings_of(name) if settings is None else settings, seed)
    agent.name = name
    return agent


def load(source: str | Path, device: str = "cpu", revision: str | None = None, *, allow_import: bool = False) -> Agent:
    """Load a saved agent on any device, without unpickling anything or running code from the folder.

    The folder names the agent's class. Built-in classes and those of installed packages (entry points) are used; a
    class named as ``package.module:Class`` is imported only with ``allow_import``.

    Args:
        source: A folder that ``Agent.save`` wrote, such as ``runs/mine/checkpoint``, a folder that ``pmlm publish``
            wrote, or the name of a repository on the Hugging Face hub.
        device: The device for its networks.
        revision: The repository's branch, tag, or commit.
        allow_import: Whether a class named as ``package.module:Class`` may be imported.

    Raises:
        ValueError: There is no such folder or repository; a file is missing, damaged, or from another version; or the
            folder describes an invalid agent, or one whose class is not installed or must not be imported.
        OSError: The hub does not respond.
    """
    from agents.base import CONFIG, WEIGHTS
    from agents.problem import Shape
    from pmlm_env.io.checked_files import file_in, read_object, read_tensors

    folder = _folder(str(source), revision)
    try:
        described, weights = file_in(folder, CONFIG), file_in(folder, WEIGHTS)
    except ValueError as error:
        raise ValueError(f"{source} is not a saved agent: {error}") from None
    content, cure = read_object(described), "copy the folder again, or train a new agent"
    known = {"agent": str, "settings": dict, "seed": int, "shape": dict, "learned": dict}
    if content.keys() != known.keys() or not all(type(content[key]) is kind for key, kind in known.items()):
        raise ValueError(f"{described}: it should contain {', '.join(known)}, and nothing else: {cure}")
    kind = saved_settings_class(content["agent"], described, allow_import)
    try:
        agent = make(content["agent"], from_plain(kind, content["settings"]), content["seed"])
        agent.may_import = allow_import
        agent.shape = from_plain(Shape, content["shape"])
    except ValueError as error:
        raise ValueError(f"{described}: {error}: {cure}") from None
    try:
        agent.restore(content["learned"], lambda shapes: read_tensors(weights, shapes), device)
    except ValueError as error:
        where = "" if str(error).startswith(str(weights)) else f"{described}: "
        raise ValueError(f"{where}{error}") from None
    return agent


def saved_settings_class(name: str, described: Path, allow_import: bool) -> type:
    """Return the class of the settings of an agent that a file names.

    Args:
        name: The agent.
        described: The file, for messages.
        allow_import: See ``class_of``.

    Raises:
        ValueError: The agent's class is not installed, must not be imported, or is not complete.
    """
    if not REGISTRY.knows(name):
        raise ValueError(
            f"{described}: there is no agent {shortened(name)} here: install the package that adds it, if you trust "
            f"that package; without it there are {', '.join(REGISTRY.names())}"
        )
    try:
        return type(entry(name, allow_import).config)
    except ValueError as error:
        raise ValueError(f"{described}: {error}") from None


def _folder(source: str, revision: str | None) -> Path:
    """Return the folder of a saved agent, downloaded from the hub if necessary.

    Raises:
        ValueError: There is no such folder or repository.
        OSError: The hub does not respond.
    """
    folder = Path(os.path.expanduser(source))
    if folder.is_dir():
        return folder.resolve()
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or ("/" in source and folder.parent.is_dir()):
        raise ValueError(
            f"{source} is not there: name the folder of a saved agent, such as the folder checkpoint of a run, or a "
            "repository on the Hugging Face hub"
        )
    return Path(_downloaded(source, revision))


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
        raise OSError(f"{name!r} is not a folder, and could not be downloaded from the hub: {why}") from None
