"""Steering around a `gymnasium.vector.VectorEnv`, in all three autoreset modes.

After each step `info` holds, beside what the environment wrote, arrays with one entry a sub-environment, and for each
array `name` a mask `_name` of the entries that mean something, as Gymnasium's own vector infos do:

- `steering/<metric>`: float32 (`offline_eval.wrappers.steering` lists the metrics).
- `steering/executed_action`: the actions that the sub-environments got, (num_envs, *action_shape).

They belong to the step just taken, also where that step ended an episode and the rest of `info` is already the next
one's (same-step autoreset). In next-step mode the step after the end of an episode is a reset that ignores its action:
that row is not steered, draws no noise, and its masks are False.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from offline_eval.batching import copied, take
from offline_eval.types import Array, Rule
from offline_eval.wrappers.host import EXECUTED, PREFIX, EpisodeNoise, Steering

__all__ = ["SteerAction"]


class SteerAction(VectorWrapper, RecordConstructorArgs):
    """Steers every action on its way into a vector environment.

    Step by step the same as `offline_eval.wrappers.SteerAction` around each sub-environment.

    Args:
        env: observations and actions as the rule's critic expects them.
        rule: what to do to an action; where it has one entry a row, one for each sub-environment.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], rule: Rule) -> None:
        RecordConstructorArgs.__init__(self, rule=rule)
        super().__init__(env)
        self.steering = Steering(rule, env.single_observation_space, env.single_action_space)
        self.steering.check_rows(env.num_envs)
        # Like Gymnasium's own wrappers: an environment that does not say resets on the next step.
        self._mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._noise = EpisodeNoise(env.num_envs, self.steering.begin)
        self._observations: Any = None
        self._resets_next = np.zeros(env.num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all sub-environments, or those of `options["reset_mask"]`; seed `s` means `s + i` for the i-th."""
        every = np.ones(self.num_envs, dtype=np.bool_)
        # Read before the call: the environment takes the mask out of the caller's dict.
        mask = every if options is None else options.get("reset_mask", every)
        observations, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # lists too
        self._observations = copied(observations)  # the caller may write into what he was given
        self._noise.begin(np.flatnonzero(mask), self._seeds(seed))
        self._resets_next[mask] = False
        return observations, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step with the steered actions."""
        if self._observations is None:
            raise ResetNeeded("`reset` comes before `step`: an action is steered by the observation it answers")
        live = np.flatnonzero(~self._resets_next)
        executed, report = np.asarray(actions), {}
        if len(live) > 0:
            noise = self.steering.draw_noise(self._noise.of(live))
            steered, metrics = self.steering(take(self._observations, live), executed[live], noise, rows=live)
            executed = executed.astype(steered.dtype)
            executed[live] = steered
            report = self._report(metrics, executed, live)
        self._noise.begin(np.flatnonzero(self._resets_next))
        observations, rewards, terminated, truncated, info = self.env.step(executed)
        self._observations = copied(observations)
        done = np.logical_or(terminated, truncated)
        if self._mode == AutoresetMode.SAME_STEP:
            self._noise.begin(np.flatnonzero(done))
        elif self._mode == AutoresetMode.NEXT_STEP:
            self._resets_next = done
        return observations, rewards, terminated, truncated, {**report, **info}

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None] | None:
        if seed is None or isinstance(seed, Sequence):
            return seed
        return range(seed, seed + self.num_envs)

    def _report(self, metrics: dict[str, Array], executed: Array, live: Array) -> dict[str, Any]:
        report: dict[str, Any] = {EXECUTED: executed.copy()}
        for name, values in metrics.items():
            report[PREFIX + name] = np.zeros(self.num_envs, dtype=values.dtype)
            report[PREFIX + name][live] = values
        for name in list(report):
            mask = np.zeros(self.num_envs, dtype=np.bool_)
            mask[live] = True
            report[f"_{name}"] = mask
        return report
