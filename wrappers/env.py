"""Steering around a `gymnasium.Env`.

After each step `info` holds, beside what the environment wrote:

- `steering/<metric>`: a float for each metric that the rule reports (`offline_eval.wrappers.steering` lists them).
- `steering/executed_action`: the action that the environment got.

Where steering environments are stacked, the entries are those of the innermost, which has the last word.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs

from offline_eval.batching import copied
from offline_eval.types import Rule
from offline_eval.wrappers.host import EXECUTED, PREFIX, EpisodeNoise, Steering, batch_of_one

__all__ = ["SteerAction"]


class SteerAction(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Steers every action on its way into an environment.

    The observation that an action answers is the one that this wrapper returned last, so whatever changes
    observations for the policy alone (a normalisation that the critic does not want) belongs around it.

    Example:
        >>> env = SteerAction(gym.make("Pendulum-v1"), OPEX(critic, step_size=0.1))  # doctest: +SKIP

    Args:
        env: observations and actions as the rule's critic expects them.
        rule: what to do to an action. `env.spec` rebuilds this stack with the very same rule and critic.
    """

    def __init__(self, env: gym.Env[Any, Any], rule: Rule) -> None:
        RecordConstructorArgs.__init__(self, rule=rule)
        super().__init__(env)
        self.steering = Steering(rule, env.observation_space, env.action_space)
        self.steering.check_rows(1)
        self._noise = EpisodeNoise(1, self.steering.begin)
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; the rule's noise starts again from `seed`, or goes on to the next episode without one."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._observation = copied(observation)  # the caller may write into what he was given
        self._noise.begin([0], [seed])
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step with the steered action."""
        if self._observation is None:
            raise ResetNeeded("`reset` comes before `step`: an action is steered by the observation it answers")
        noise = self.steering.draw_noise(self._noise.of([0]))
        executed, metrics = self.steering(batch_of_one(self._observation), np.asarray(action)[None], noise)
        observation, reward, terminated, truncated, info = self.env.step(executed[0].copy())
        self._observation = copied(observation)
        report: dict[str, Any] = {PREFIX + name: float(values[0]) for name, values in metrics.items()}
        report[EXECUTED] = executed[0]
        return observation, reward, terminated, truncated, {**report, **info}
