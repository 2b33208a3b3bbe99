"""The rung that the truth guides: candidate actions rolled out from the running state, the best of them executed.

It is played in copies of the simulator (`worlds`). Every `hold` steps each candidate is tried in copies of its own,
goes on with the base policy, a little noise in its actions, and the discounted reward decides: so a choice that pays
only by the chaos of one exact trajectory is not taken for knowledge. What it gains is a lower bound of what is within
reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import Space

from offline_eval.batching import take
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.diagnosis.simulators import WorldMaker
from offline_eval.errors import InputError
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Observations, Predictor, Rule
from offline_eval.wrappers.host import Steering
from offline_eval.wrappers.reach import NearbyActions

_NUM_FUTURES = 2**31
_BASE_STREAM, _CANDIDATE_STREAM = 0xBA5E, 0xCA2D


@dataclass(frozen=True)
class TruthPlan:
    """How much truth is sought.

    Attributes:
        num_starts: episodes, or segments.
        num_steered: of them where the base is steered (`where_steered`).
        longest: episodes up to this time limit are played whole; of longer ones, segments.
        segment: steps of a segment that the truth guides; the base policy then goes on for `horizon` steps.
        num_near: candidates from the data.
        num_offsets: candidates around the base action.
        std: of the offsets.
        num_rollouts: of each candidate.
        horizon: steps of a rollout at most.
        noise: standard deviation of the noise in a rollout's actions, scaled.
        hold: steps for which a candidate's difference to the base action is kept.
    """

    num_starts: int = 20
    num_steered: int = 10
    longest: int = 200
    segment: int = 20
    num_near: int = 8
    num_offsets: int = 12
    std: float = 0.3
    num_rollouts: int = 2
    horizon: int = 25
    noise: float = 0.03
    hold: int = 4

    def __post_init__(self) -> None:
        for name in ("num_starts", "num_steered", "longest", "segment", "num_near", "num_rollouts", "horizon", "hold"):
            if getattr(self, name) < 1:
                raise InputError(name, "must be >= 1", getattr(self, name))
        for name in ("std", "noise"):
            if not getattr(self, name) >= 0.0:
                raise InputError(name, "must be >= 0", getattr(self, name))

    def where_steered(self) -> TruthPlan:
        """Less of it, for a base whose every step asks the critic."""
        return replace(self, num_starts=min(self.num_starts, self.num_steered))


class Base:
    """A policy, and perhaps a rule that steers it, for any number of rows."""

    def __init__(
        self, policy: Predictor, rule: Rule | None, observation_space: Space[Any], action_space: Space[Any]
    ) -> None:
        self._policy = policy
        self._steering = None if rule is None else Steering(rule, observation_space, action_space, width=None)
        self.noise_shape = () if self._steering is None else self._steering.noise_shape

    def act(self, observations: Observations, noise: Array | None) -> Array:
        """Actions (batch, *action_shape) in the environment's units, given noise (batch, *noise_shape)."""
        actions, state = self._policy.predict(observations, deterministic=True)
        if state is not None:
            raise InputError("policy", "must have no recurrent state to be rolled out", type(self._policy).__name__)
        if self._steering is None:
            return np.asarray(actions)
        return self._steering(observations, actions, noise)[0]


@dataclass(frozen=True, eq=False)
class Start:
    """Where a play begins: before a step of a logged episode."""

    episode: LoggedEpisode
    step: int


class TruthPlay:
    """Plays a base policy in copies of the simulator, with the truth at its side or without.

    Args:
        maker: of copies.
        action_space: a Box.
        gamma: discount by which candidates are compared.
        plan: how much.
        seed: of all noise.

    Attributes:
        at_once: starts that are well played side by side: copies that are environments of their own cost memory, and
            time to make.
    """

    def __init__(
        self,
        maker: WorldMaker,
        action_space: Space[Any],
        gamma: float,
        plan: TruthPlan,
        seed: int,
    ) -> None:
        self.maker, self.plan, self.seed, self.gamma = maker, plan, seed, gamma
        self._scale = ActionScale(action_space)
        self._space: Any = action_space
        self._dim = int(np.prod(action_space.shape or (1,)))
        self.at_once = 64 if maker.can_simulate else 4

    def returns(
        self,
        base: Base,
        starts: Sequence[Start],
        num_steps: int,
        *,
        proposal: NearbyActions | None = None,
        extra: Sequence[Base] = (),
        num_guided: int | None = None,
        region: Callable[[Observations], Array] | None = None,
        first: int = 0,
    ) -> Array:
        """Undiscounted returns (num_starts,).

        Args:
            base: acts, and goes on after every candidate.
            starts: where.
            num_steps: to be played from each.
            proposal: candidates; None plays the base alone.
            extra: policies whose actions are candidates as well.
            num_guided: steps that the truth guides; all of them if left out.
            region: says of observations (batch, ...) where the truth guides (batch,); everywhere if left out.
            first: number of the first start, which its noise is drawn by.
        """
        num_guided = num_guided or num_steps
        size = len(starts)
        main = self.maker(size)
        trial = None
        if proposal is not None:
            num_candidates = proposal.num_samples + len(extra)
            trial = self.maker(size * num_candidates * self.plan.num_rollouts)
        try:
            rows = np.arange(size)
            main.begin(rows, [start.episode for start in starts], [start.step for start in starts])
            seen: list[Any] = [take(start.episode.observations, np.array([start.step])) for start in starts]
            observations: Array = np.concatenate(seen)
            draws = [np.random.default_rng([_BASE_STREAM, self.seed, first + number]) for number in range(size)]
            totals, live = np.zeros(size), rows
            held = np.zeros((size, self._dim), dtype=np.float32)
            for step in range(num_steps):
                noise = _drawn([draws[row] for row in live], base.noise_shape) if base.noise_shape else None
                actions = base.act(observations[live], noise)
                inside = live if region is None else live[region(observations[live])]
                if trial is not None and step < num_guided and step % self.plan.hold == 0 and len(inside):
                    assert proposal is not None
                    held[inside] = self._best(
                        base,
                        main,
                        trial,
                        inside,
                        observations[inside],
                        actions[np.isin(live, inside)],
                        proposal,
                        extra,
                        partial(_stamp, first, step),
                    )
                held[rows if step >= num_guided else np.setdiff1d(rows, inside)] = 0.0
                stepped = main.step(live, self._moved(actions, held[live]))
                totals[live] += stepped.rewards
                observations[live] = stepped.observations
                live = live[~stepped.terminated]
                if not len(live):
                    break
            return totals
        finally:
            main.close()
            if trial is not None:
                trial.close()

    def _best(
        self,
        base: Base,
        main: Any,
        trial: Any,
        live: Array,
        observations: Array,
        own: Array,
        proposal: NearbyActions,
        extra: Sequence[Base],
        stamp: Callable[[int], tuple[int, int]],
    ) -> Array:
        """The difference (num_live, action_dim) to the own action, scaled, that pays best."""
        plan, size = self.plan, len(live)
        # Every start draws for itself, so that it does not matter what is played beside it.
        generators = [np.random.default_rng([_CANDIDATE_STREAM, self.seed, *stamp(row)]) for row in live]
        candidates = self._candidates(observations, own, proposal, extra, generators)
        differences = candidates - candidates[:, :1]
        number = differences.shape[1]
        # Row order: start, candidate, rollout. The candidates of a start and rollout share their random numbers, those
        # of the simulator among them.
        copies = np.arange(size * number * plan.num_rollouts)
        start, candidate, rollout = np.unravel_index(copies, (size, number, plan.num_rollouts))
        futures = np.stack([generator.integers(_NUM_FUTURES, size=plan.num_rollouts) for generator in generators])
        trial.copy(main, copies, live[start], futures[start, rollout])
        jitter = self._ahead(generators, (self._dim,))
        noise = self._ahead(generators, base.noise_shape) if base.noise_shape else None
        shift, actions = differences[start, candidate], own[start]
        values, weight, running = np.zeros(len(copies)), 1.0, copies
        for step in range(plan.horizon):
            moved = self._moved(actions, shift[running] if step < plan.hold else None)
            stepped = trial.step(running, moved)
            values[running] += weight * stepped.rewards
            weight *= self.gamma
            alive = ~stepped.terminated
            running = running[alive]
            if step + 1 == plan.horizon or not len(running):
                break
            drawn = None if noise is None else noise[start[running], step, rollout[running]]
            actions = base.act(stepped.observations[alive], drawn)
            actions = self._moved(actions, plan.noise * jitter[start[running], step, rollout[running]])
        table = values.reshape(size, number, plan.num_rollouts)
        best = (table - table[:, :1]).mean(axis=2).argmax(axis=1)
        return np.asarray(differences[np.arange(size), best])

    def _candidates(
        self,
        observations: Array,
        own: Array,
        proposal: NearbyActions,
        extra: Sequence[Base],
        generators: Sequence[np.random.Generator],
    ) -> Array:
        """Scaled actions (num_live, num_candidates, action_dim), the own one first."""
        scaled = self._scaled(own)
        noise = _drawn(generators, proposal.noise_shape(self._dim))
        device = proposal.neighbours.device
        given = [th.as_tensor(part, dtype=th.float32, device=device) for part in (observations, scaled, noise)]
        proposed = proposal(given[0], given[1], given[2]).cpu().numpy()
        others = []
        for policy in extra:
            drawn = _drawn(generators, policy.noise_shape) if policy.noise_shape else None
            others.append(self._scaled(policy.act(observations, drawn))[:, None])
        return np.concatenate([proposed, *others], axis=1)

    def _ahead(self, generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Array:
        """Noise of all rollouts (num_live, horizon, num_rollouts, *shape).

        Every other rollout has the opposite noise of the one before: the best answer to a push that will not come
        again cancels to first order, which else would be taken for the best action.
        """
        noise = _drawn(generators, (self.plan.horizon, self.plan.num_rollouts, *shape))
        opposite = self.plan.num_rollouts // 2 * 2
        noise[:, :, 1:opposite:2] = -noise[:, :, 0:opposite:2]
        return noise

    def _scaled(self, actions: Array) -> Array:
        return self._scale.scale(actions.astype(np.float32)).reshape(len(actions), -1)

    def _moved(self, actions: Array, shift: Array | None) -> Array:
        """Actions in the environment's units, moved by scaled differences and kept in the box."""
        if shift is None:
            return actions
        moved = self._scaled(actions) + shift
        low, high = self._scale.scaled_low.ravel(), self._scale.scaled_high.ravel()
        inside = np.clip(moved, low, high).astype(np.float32).reshape(actions.shape)
        after = np.clip(self._scale.unscale(inside), self._space.low, self._space.high).astype(actions.dtype)
        still = ~shift.any(axis=1)
        after[still] = actions[still]  # what is not moved keeps its bits
        return np.asarray(after)


def _stamp(first: int, step: int, row: int) -> tuple[int, int]:
    """What names a decision: the start's number and the step."""
    return first + int(row), step


def _drawn(generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Array:
    """Standard normal numbers (len(generators), *shape)."""
    return np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in generators])
