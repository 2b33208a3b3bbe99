"""Steering inside a policy: for everything that takes an object with Stable-Baselines3's `predict`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from gymnasium import Space

from offline_eval.batching import copied
from offline_eval.errors import InputError, bare
from offline_eval.masking import refuse_masked
from offline_eval.types import Array, Predictor, Rule
from offline_eval.wrappers.host import EpisodeNoise, Metrics, Steering, batch_of_one
from offline_eval.wrappers.rules import of_policy

__all__ = ["SteeredPolicy"]


class SteeredPolicy:
    """A policy whose actions come out steered.

    `evaluate_policy(SteeredPolicy(model, rule), env)` works unchanged. `EvalCallback` does not take one, as it
    evaluates the learner itself: there `offline_eval.wrappers.sb3.SteerAction` around the `eval_env` is the way.

    Example:
        >>> policy = SteeredPolicy(model, OPEX(critic_of(model), step_size=0.1), seed=0)  # doctest: +SKIP
        >>> evaluate_policy(policy, env, n_eval_episodes=20)  # doctest: +SKIP

    Args:
        model: the policy; its `predict` gets everything as it comes. Rule and model see the same observations: with
            a `VecNormalize` around the environment, steer inside it (`offline_eval.wrappers.sb3`).
        rule: what to do to an action.
        seed: of the rule's noise. Row i uses `seed + i` in its first episode, as a vector environment that is reset
            with this seed does, and goes on to new noise at each `episode_start`.
        observation_space: of one environment; None takes the model's.
        action_space: of one environment; None takes the model's.
    """

    def __init__(
        self,
        model: Predictor,
        rule: Rule,
        seed: int | None = None,
        observation_space: Space[Any] | None = None,
        action_space: Space[Any] | None = None,
    ) -> None:
        if not callable(getattr(model, "predict", None)):
            raise InputError("model", "must have SB3's `predict`", bare(type(model).__name__))
        refuse_masked(model, "model", "a rule does not know which actions are allowed")
        self.model, self.rule, self.seed = model, of_policy(rule, model), seed
        self.observation_space = observation_space or getattr(model, "observation_space", None)
        chosen = action_space or getattr(model, "action_space", None)
        if chosen is None:
            raise InputError("action_space", "must be given: the model does not say it", None, "env.action_space")
        self.action_space: Space[Any] = chosen
        self.steering = Steering(self.rule, self.observation_space, self.action_space)
        self.metrics: Metrics = {}
        """What the rule reported for the last prediction, each (batch,)."""
        self._noise: EpisodeNoise | None = None
        self._num_rows = 0

    @property
    def device(self) -> th.device:
        """Where it computes: the rule's device, or the model's where the rule needs none."""
        own = self.rule.device
        return own if own.type != "cpu" else th.device(getattr(self.model, "device", own))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """The steered actions, batched or single as the observation, and the model's next state.

        Args:
            observation: one or a batch.
            state: of a recurrent model.
            episode_start: (batch,) whether an episode begins; its row gets new noise. Without it a row stays in the
                same episode.
            deterministic: the model's mean action or a draw.
        """
        seen = copied(observation)  # what the critic is asked about, whatever the model does to its input
        actions, state = self.model.predict(
            observation, state=state, episode_start=episode_start, deterministic=deterministic
        )
        actions = np.asarray(actions)
        if actions.ndim > len(self.action_space.shape or ()):
            return self._steer(seen, actions, episode_start), state
        return self._steer(batch_of_one(seen), actions[None], episode_start)[0], state

    def _steer(self, observations: Any, actions: Array, episode_start: Any) -> Array:
        noise = self.steering.draw_noise(self._generators(len(actions), episode_start))
        steered, self.metrics = self.steering(observations, actions, noise)
        return steered

    def _generators(self, num_rows: int, episode_start: Any) -> list[np.random.Generator]:
        if self._noise is None or num_rows != self._num_rows:
            self._noise, self._num_rows = EpisodeNoise(num_rows, self.steering.begin), num_rows
            seeds = None if self.seed is None else range(self.seed, self.seed + num_rows)
            self._noise.begin(range(num_rows), seeds)
        elif episode_start is not None:
            self._noise.begin(np.flatnonzero(np.broadcast_to(episode_start, (num_rows,))))
        return self._noise.of(range(num_rows))
