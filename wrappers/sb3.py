"""Steering around a Stable-Baselines3 `VecEnv`.

After each step every dict in `infos` holds, beside what the environment wrote:

- `steering/<metric>`: a float for each metric that the rule reports (`offline_eval.wrappers.steering` lists them).
- `steering/executed_action`: the action that this environment got.

They belong to the step just taken, also where it ended an episode.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from offline_eval.batching import copied
from offline_eval.errors import InputError
from offline_eval.types import Array, Observations, Rule
from offline_eval.wrappers.host import EXECUTED, PREFIX, EpisodeNoise, Metrics, Steering

__all__ = ["SteerAction"]


class SteerAction(VecEnvWrapper):
    """Steers every action on its way into a VecEnv.

    `EvalCallback` evaluates the learner itself: to see it steered during training, wrap the callback's `eval_env`.
    With `VecNormalize` the order is `VecNormalize(SteerAction(venv, rule))`: a critic sees observations as the
    environment gives them and normalises them itself.

    Args:
        venv: observations and actions as the rule's critic expects them.
        rule: what to do to an action; where it has one entry a row, one for each environment.
    """

    def __init__(self, venv: VecEnv, rule: Rule) -> None:
        normalize = unwrap_vec_normalize(venv)
        if normalize is not None and normalize.norm_obs:
            raise InputError(
                "venv",
                "must give observations as the environment does: a critic normalises them itself",
                venv,
                "VecNormalize(SteerAction(venv, rule)), in this order",
            )
        super().__init__(venv)
        self.steering = Steering(rule, venv.observation_space, venv.action_space)
        self.steering.check_rows(venv.num_envs)
        self._noise = EpisodeNoise(venv.num_envs, self.steering.begin)
        self._observations: Observations | None = None
        self._metrics: Metrics = {}
        self._executed: Array | None = None

    def reset(self) -> VecEnvObs:
        """Reset; noise starts again from seeds given since the last reset, or goes on to the next episode."""
        # `make_vec_env(..., seed=...)` and `seed` leave the seeds at the innermost VecEnv, whose reset forgets them.
        seeds = getattr(self.venv.unwrapped, "_seeds", None) or [None] * self.num_envs
        observations = self.venv.reset()
        self._noise.begin(range(self.num_envs), seeds)
        self._observations = copied(observations)  # the caller may write into what he was given
        return observations

    def step_async(self, actions: Array) -> None:
        """Send the steered actions on their way."""
        if self._observations is None:
            raise ResetNeeded("`reset` comes before `step`: an action is steered by the observation it answers")
        noise = self.steering.draw_noise(self._noise.of(range(self.num_envs)))
        self._executed, self._metrics = self.steering(self._observations, np.asarray(actions), noise)
        self.venv.step_async(self._executed.copy())

    def step_wait(self) -> VecEnvStepReturn:
        """What came of them."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._observations = copied(observations)
        self._noise.begin(np.flatnonzero(dones))
        return observations, rewards, dones, [{**self._report(row), **info} for row, info in enumerate(infos)]

    def _report(self, row: int) -> dict[str, Any]:
        assert self._executed is not None  # `step_async` came before
        report: dict[str, Any] = {PREFIX + name: float(values[row]) for name, values in self._metrics.items()}
        report[EXECUTED] = self._executed[row].copy()
        return report
