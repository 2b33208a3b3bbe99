"""What a rule costs a step: how many rows the critic rates, and how long a host takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from gymnasium import Space
from torch import Tensor

from offline_eval.types import Array, Critic, Rule
from offline_eval.wrappers.host import Steering, noise_generator


@dataclass(frozen=True)
class Cost:
    """Of one step of one environment.

    Attributes:
        forward: rows that the critic rated.
        backward: those of them through which a gradient went.
        milliseconds: of the host's call, median over steps of all environments together; NaN where it was not timed.
    """

    forward: float
    backward: float
    milliseconds: float = float("nan")


class CountingCritic:
    """A critic that counts the rows it is asked about."""

    def __init__(self, critic: Critic) -> None:
        self._critic = critic
        self.forward = self.backward = 0

    def q(self, observations: Any, actions: Tensor) -> Tensor:
        """The critic's values (n_critics, batch)."""
        self.forward += len(actions)
        if th.is_grad_enabled() and actions.requires_grad:
            self.backward += len(actions)
        return self._critic.q(observations, actions)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for before there is a critic, while a copy is being made
            raise AttributeError(name)
        return getattr(self._critic, name)


def cost_of(
    rule: Rule | None, critic: CountingCritic, steps: Sequence[tuple[Any, Array]], spaces: tuple[Space[Any], Space[Any]]
) -> Cost:
    """Steer recorded steps once more, without padding, and count.

    Args:
        rule: made of `critic`.
        critic: whose rows are counted.
        steps: observations and the policy's actions, each (num_envs, ...), in the order of an episode.
        spaces: of observations and actions.
    """
    if rule is None:
        return Cost(0.0, 0.0, 0.0)
    num_envs = len(steps[0][1])
    forward, backward = critic.forward, critic.backward
    _steered(rule, steps, spaces, None)
    rows = num_envs * len(steps)
    asked = (critic.forward - forward) / rows, (critic.backward - backward) / rows
    seconds = _steered(rule, steps, spaces, "auto")
    return Cost(*asked, 1000.0 * float(np.median(seconds)))


def _steered(
    rule: Rule, steps: Sequence[tuple[Any, Array]], spaces: tuple[Space[Any], Space[Any]], width: str | None
) -> list[float]:
    steering = Steering(rule, *spaces, width)
    rows = np.arange(len(steps[0][1]))
    steering.begin(rows)
    generators = [noise_generator(int(row)) for row in rows]
    seconds = []
    for observations, actions in steps:
        began = time.perf_counter()
        steering(observations, actions, steering.draw_noise(generators), rows)
        seconds.append(time.perf_counter() - began)
    return seconds


class Recorder:
    """A policy that remembers what it was asked and what it answered.

    Args:
        policy: who answers.
        num_rows: of a batch, as many as are kept.
        num_steps: kept.
    """

    def __init__(self, policy: Any, num_rows: int, num_steps: int) -> None:
        self.policy, self._num_rows, self._num_steps = policy, num_rows, num_steps
        self.steps: list[tuple[Any, Array]] = []

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """The policy's own answer."""
        actions, state = self.policy.predict(observation, state, episode_start, deterministic)
        if len(self.steps) < self._num_steps:
            seen = (
                {key: value[: self._num_rows].copy() for key, value in observation.items()}
                if isinstance(observation, dict)
                else observation[: self._num_rows].copy()
            )
            self.steps.append((seen, actions[: self._num_rows].copy()))
        return actions, state
