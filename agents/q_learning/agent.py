"""Q-learning agents: they learn the value of each edit, and mask illegal edits wherever they use values."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from agents.policies.agent import WordPolicyAgent
from agents.policies.distributions import MaskedCategorical
from agents.policies.rollout import play
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.problem import Problem, Shape
from agents.q_learning.config import DoubleDQNConfig, QConfig, SoftQConfig
from agents.q_learning.replay import Replay
from agents.settings import Choices, Floats, Integers, Range

_Index = npt.NDArray[np.int64]

_SPACE: dict[str, Range] = {
    "learning_rate": Floats(1e-4, 3e-2, log=True),
    "gradient_steps": Integers(1, 16),
    "batch_size": Choices((16, 32, 64, 128)),
}


class QAgent(WordPolicyAgent):
    """Learns values from a replay buffer of all its episodes, with a ``WordPolicy`` as the network.

    Rewards are standardized over all rewards of the same patient so far, because some patients' prompts are easier to
    improve than others.
    """

    config: QConfig

    @abstractmethod
    def _learned(self, network: WordPolicy) -> nn.Module:
        """Return the policy that a network has learned, without exploration."""

    @abstractmethod
    def _player(self, network: WordPolicy, spent: float) -> nn.Module:
        """Return the policy defined by a network when the fraction ``spent`` of the budget is spent."""

    @abstractmethod
    def _learner(self, network: WordPolicy) -> _Learner:
        """Return the learner that trains a network."""

    def fit(self, problem: Problem) -> None:
        """Learn until the budget is spent; see ``Agent.fit``."""
        self.shape, config, meter = problem.shape, self.config, problem.reward
        total = meter.most_episodes
        network = self.policy = self._new(self.shape, None, problem.encoder.device)
        learner = self._learner(network)
        env = problem.env(config.rows)
        replay = Replay(env.task)
        patients, draws = np.random.default_rng(self.seed), torch.Generator(env.task.encoder.device)
        draws.manual_seed(self.seed)
        n_patients, whole = config.rows // config.rollouts, meter.left
        for played in range(0, total, config.rows):
            spent = max(played / total, 1 - meter.left / whole)
            chosen = patients.choice(len(problem.episodes), n_patients, replace=n_patients > len(problem.episodes))
            episodes = np.repeat(chosen, config.rollouts).tolist()
            rollout = play(env, self._player(network, spent), episodes, draws, masked=config.masked)
            for episode, info, reward, valid in zip(
                episodes, rollout.infos, rollout.rewards, rollout.valid, strict=True
            ):
                if valid:
                    replay.add(episode, tuple(edit.slot for edit in info["edits"]), float(reward))
            if len(replay):
                for _ in range(config.gradient_steps):
                    learner.step(replay, patients)

    def player(self, shape: Shape, device: torch.device | str) -> nn.Module:
        """Return the policy defined by the current values, without exploration; see ``PolicyAgent.player``."""
        return self._learned(self._policy(shape, device))

    def _policy_config(self, shape: Shape) -> PolicyConfig:
        config = self.config
        return PolicyConfig(
            shape.embedding_size,
            shape.patient_size,
            config.hidden,
            normalize=config.normalize,
            positions=shape.max_words if config.positions else 0,
        )


class DoubleDQN(QAgent):
    """Double DQN (van Hasselt et al. 2016) with epsilon-greedy exploration."""

    name = "q-dqn"
    Config = DoubleDQNConfig
    space = {**_SPACE, "n_step": Choices((1, 3, 5, 10)), "exploration": Floats(0.1, 1.0)}  # noqa: RUF012
    config: DoubleDQNConfig

    def _learned(self, network: WordPolicy) -> nn.Module:
        return _EpsilonGreedy(network, 0.0)

    def _player(self, network: WordPolicy, spent: float) -> nn.Module:
        config = self.config
        fallen = 1.0 if config.exploration == 0 else min(1.0, spent / config.exploration)
        return _EpsilonGreedy(network, config.epsilon + (config.final_epsilon - config.epsilon) * fallen)

    def _learner(self, network: WordPolicy) -> _Learner:
        return _DoubleDQNLearner(network, self.config)


class SoftQ(QAgent):
    """Soft Q-learning by path consistency, as in RLPrompt (Deng et al. 2022; Guo et al. 2022)."""

    name = "q-soft"
    Config = SoftQConfig
    space = {  # noqa: RUF012
        **_SPACE,
        "q_temperature": Floats(0.01, 1.0, log=True),
        "target_rate": Floats(1e-3, 1.0, log=True),
    }
    config: SoftQConfig

    def _learned(self, network: WordPolicy) -> nn.Module:
        return _Softmax(network, self.config.q_temperature)

    def _player(self, network: WordPolicy, spent: float) -> nn.Module:
        return self._learned(network)

    def _learner(self, network: WordPolicy) -> _Learner:
        return _SoftLearner(network, self.config)


class _EpsilonGreedy(nn.Module):
    """Epsilon-greedy policy: the word with the highest value, or a random word with probability ``epsilon``."""

    def __init__(self, network: WordPolicy, epsilon: float) -> None:
        super().__init__()
        self.network, self.epsilon = network, epsilon

    def forward(self, observation: Mapping[str, torch.Tensor]) -> MaskedCategorical:
        scores, legal = self.network.scores(observation), observation["action_mask"] != 0
        best = MaskedCategorical(scores, legal).mode()
        uniform = legal / legal.sum(dim=-1, keepdim=True)
        mixed = (1 - self.epsilon) * nn.functional.one_hot(best, legal.shape[1]) + self.epsilon * uniform
        return MaskedCategorical(mixed.log(), legal)


class _Softmax(nn.Module):
    """Softmax policy: words are drawn with probabilities softmax(Q / temperature)."""

    def __init__(self, network: WordPolicy, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, observation: Mapping[str, torch.Tensor]) -> MaskedCategorical:
        return MaskedCategorical(self.network.scores(observation) / self.temperature, observation["action_mask"] != 0)


class _Learner(ABC):
    """A network and its target network, which follows it slowly."""

    def __init__(self, network: WordPolicy, config: QConfig) -> None:
        self.network, self._config = network, config
        self.target = copy.deepcopy(network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)

    def step(self, replay: Replay, rng: np.random.Generator) -> None:
        """Take one gradient step on episodes drawn from the replay."""
        loss = self.loss(replay, rng.integers(len(replay), size=self._config.batch_size), rng)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self._config.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.network.parameters(), strict=True):
                slow.lerp_(fast, self._config.target_rate)

    @abstractmethod
    def loss(self, replay: Replay, drawn: _Index, rng: np.random.Generator) -> torch.Tensor:
        """Return the loss on the episodes ``drawn`` from the replay; ``rng`` selects steps if not all are used."""

    def _legal(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        mask = observation["action_mask"] != 0
        return mask if self._config.masked else torch.ones_like(mask)


class _DoubleDQNLearner(_Learner):
    """The loss of double DQN."""

    def __init__(self, network: WordPolicy, config: DoubleDQNConfig) -> None:
        super().__init__(network, config)
        self._n_step = config.n_step

    def loss(self, replay: Replay, drawn: _Index, rng: np.random.Generator) -> torch.Tensor:
        """Return the mean squared error of Q(s_t, a_t) for one random t of each episode.

        The target is the return or, if the episode continues after ``n_step`` steps,
        Q_target(s_{t+n}, argmax over legal a of Q(s_{t+n}, a)).
        """
        lengths = replay.lengths(drawn)
        at = rng.integers(lengths)
        observation = replay.observe(drawn, at)
        slots = torch.as_tensor(replay.slots(drawn, at), device=observation["action_mask"].device)
        values = self.network.scores(observation).gather(-1, slots[:, None]).squeeze(-1)
        targets = torch.as_tensor(replay.returns(drawn), dtype=values.dtype, device=values.device)
        later = at + self._n_step
        if (goes_on := later < lengths).any():
            ahead = replay.observe(drawn[goes_on], later[goes_on])
            with torch.no_grad():
                best = MaskedCategorical(self.network.scores(ahead), self._legal(ahead)).mode()
                ahead_values = self.target.scores(ahead).gather(-1, best[:, None]).squeeze(-1)
            targets[torch.as_tensor(goes_on, device=values.device)] = ahead_values
        return nn.functional.mse_loss(values, targets)


class _SoftLearner(_Learner):
    """The loss of soft Q-learning."""

    def __init__(self, network: WordPolicy, config: SoftQConfig) -> None:
        super().__init__(network, config)
        self._temperature = config.q_temperature

    def loss(self, replay: Replay, drawn: _Index, rng: np.random.Generator) -> torch.Tensor:
        """Multi-step path consistency (Guo et al. 2022), which the optimal soft policy satisfies from every step.

            V(s_t) + temperature * sum over l >= t of log pi(a_l | s_l) = return

        The loss is the sum of two squared errors: with V of the target network, and with pi of the target network.
        """
        lengths = replay.lengths(drawn)
        rows = np.repeat(np.arange(len(drawn)), lengths)
        at = np.concatenate([np.arange(length) for length in lengths])
        observation = replay.observe(drawn[rows], at)
        slots = torch.as_tensor(replay.slots(drawn[rows], at), device=observation["action_mask"].device)
        value, path = self._path(self.network, observation, slots, rows, at)
        with torch.no_grad():
            slow_value, slow_path = self._path(self.target, observation, slots, rows, at)
        returns = torch.as_tensor(replay.returns(drawn)[rows], dtype=value.dtype, device=value.device)
        return ((returns - slow_value - path) ** 2 + (returns - value - slow_path) ** 2).mean()

    def _path(
        self, network: WordPolicy, observation: dict[str, torch.Tensor], slots: torch.Tensor, rows: _Index, at: _Index
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return for each step V(s_t), and temperature times the log-probability of its action and all later ones."""
        temperature, legal = self._temperature, self._legal(observation)
        scores = network.scores(observation) / temperature
        value = temperature * scores.masked_fill(~legal, torch.finfo(scores.dtype).min).logsumexp(dim=-1)
        log_probs = scores.new_zeros(int(rows.max()) + 1, int(at.max()) + 1)
        log_probs[rows, at] = MaskedCategorical(scores, legal).log_prob(slots)
        path = log_probs.flip(1).cumsum(1).flip(1)
        return value, temperature * path[rows, at]
