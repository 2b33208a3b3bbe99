"""The ladder: paired interventions on common seeds, which decide what static numbers only suggest.

Every choice (numbers of candidates, step sizes, coefficients) is made on selection seeds and reported on fresh ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnosis.data_region import Surroundings, edge, regret_beside_data
from offline_eval.diagnosis.findings import against, is_gain, paired_to_policy, range_of, scaled
from offline_eval.diagnosis.interventions import Chosen, Option, Player
from offline_eval.diagnosis.records import (
    BEHAVIOUR,
    BEST_OF_N,
    CONTROL,
    INSIDE,
    OPEX_STEP,
    ORACLE,
    OUTSIDE,
    POLICY,
    RUNGS,
    TRUTH,
    TRUTH_INSIDE,
    Ladder,
    Reference,
    Rung,
)
from offline_eval.measurement.candidates import StateSample
from offline_eval.types import Array, Critic, Predictor, Rule
from offline_eval.wrappers import L2, OPEX
from offline_eval.wrappers.reach import BestNear, RandomNear, Where

_BEST_TRAJECTORIES = 0.1
_LEAST_GAP = 0.05  # of the range: shares of a smaller one mean nothing
_WORTH_WHILE = 0.02  # of the range


@dataclass(frozen=True, eq=False)
class TruthRung:
    """What the truth-guided plays returned, from the same starts.

    Attributes:
        policy: (n,) returns of the policy.
        base: (n,) of the rung by Q that did best; the same array where that is the policy.
        guided: (n,) of the base with the truth at its side.
        control: (n,) of a random pick from the data's actions; None where whole episodes were played.
        inside: (n,) of the policy with the truth at its side inside of the data's region only; None where that was not
            asked.
        unit: "episode" or "segment".
        note: how it was done.
        seconds: wall time.
    """

    policy: Array
    base: Array
    guided: Array
    control: Array | None
    inside: Array | None
    unit: str
    note: str
    seconds: float


class Climb:
    """Plays the rungs one after the other; `ladder()` puts them together.

    Args:
        player: of episodes.
        surroundings: of the data.
        dataset: the same data.
        critic: who rates; None leaves out what asks one.
        policy_returns: (episodes,) of the policy on the reporting seeds, where they have been played already.
    """

    def __init__(
        self,
        player: Player,
        surroundings: Surroundings,
        dataset: Dataset,
        critic: Critic | None,
        policy_returns: Array | None = None,
    ) -> None:
        self.player, self.surroundings, self.dataset, self.critic = player, surroundings, dataset, critic
        self.plan = player.plan
        if critic is not None:
            surroundings.to(critic.device)
        returns = player.report(POLICY, None) if policy_returns is None else policy_returns
        self._rungs = {POLICY: Rung(POLICY, "the policy", returns, seconds=player.seconds_of(POLICY))}
        self._chosen: dict[str, Chosen] = {}
        self._missing: dict[str, str] = {}
        self.share_outside: float | None = None
        self.regrets: dict[str, float | None] = {}

    # ---------------------------------------------------------------------------------------- what is played

    def behaviour(self) -> None:
        """What the data's own trajectories return."""
        note = "returns of the data's trajectories, from their own starts: not paired with the policy's"
        self._rungs[BEHAVIOUR] = Rung(BEHAVIOUR, "the data", np.asarray(self.dataset.returns), note=note)

    def look(self, visited: StateSample) -> None:
        """Where the policy goes, and how bad its actions are by Q beyond the edge of the data's region, and at it."""
        surroundings, critic = self.surroundings, self.critic
        distances = surroundings.distances(visited.observations)
        outside = distances > surroundings.threshold
        self.share_outside = float(outside.mean())
        if critic is not None:
            values = surroundings.values(critic, self.player.policy, visited, max(self.plan.num_near))
            parts = {"edge": edge(distances, surroundings.threshold), "outside": outside}
            self.regrets = {part: regret_beside_data(values, states) for part, states in parts.items()}

    def control(self) -> None:
        """A random pick from the data's actions near the state."""
        rule = RandomNear(self.surroundings.neighbours, max(self.plan.num_near))
        title = f"a random one of the data's {rule.num_near} nearest actions"
        self._play(CONTROL, title, rule)

    def steer(self) -> None:
        """Best-of-N and OPEX by Q, each as it did best on the selection seeds."""
        critic, plan = self.critic, self.plan
        if critic is None:
            for name in (BEST_OF_N, OPEX_STEP, INSIDE, OUTSIDE):
                self._missing[name] = "there is no critic"
            return
        choices = [
            Option({"num_samples": 2 * near + 1}, self.player.policy, self.best_near(critic, near))
            for near in plan.num_near
        ]
        chosen = self._select(BEST_OF_N, choices)
        self._play(BEST_OF_N, f"best of {chosen.option.choice['num_samples']} by Q", chosen.option.rule, chosen)
        steps = [Option({"step_size": size}, self.player.policy, self.opex(critic, size)) for size in plan.step_sizes]
        chosen = self._select(OPEX_STEP, steps)
        self._play(OPEX_STEP, f"OPEX by Q, step {chosen.option.choice['step_size']:g}", chosen.option.rule, chosen)

    def parts(self) -> None:
        """The better of the two rungs by Q, inside of the data's region only, and outside only."""
        if self.best == POLICY:
            for name in (INSIDE, OUTSIDE):
                self._missing.setdefault(name, "no rung by Q gained anything")
            return
        rule = self._chosen[self.best].option.rule
        assert rule is not None
        for name, outside in ((INSIDE, False), (OUTSIDE, True)):
            where = Where(rule, self.surroundings.region(outside))
            title = f"{self._rungs[self.best].title}, {'outside' if outside else 'inside'} the data's region only"
            self._play(name, title, where)

    def add(self, name: str, title: str, options: Sequence[Option]) -> None:
        """Any other intervention, the best of its options on the selection seeds."""
        chosen = self.player.select(name, options)
        self._play(name, title, chosen.option.rule, chosen, chosen.option.policy)

    @property
    def loses_outside(self) -> bool:
        """Whether the better rung by Q gains more outside of the data's region than inside."""
        means = [self._rungs[name].summary.mean for name in (INSIDE, OUTSIDE) if name in self._rungs]
        return len(means) == 2 and means[1] > means[0]

    def oracle(self, oracle: Predictor, name: str) -> None:
        """Somebody who knows better."""
        self._play(ORACLE, name, None, None, oracle)

    def miss(self, name: str, reason: str) -> None:
        """A rung that cannot be played."""
        self._missing[name] = reason

    # ---------------------------------------------------------------------------------------- rules

    def best_near(self, critic: Critic, num_near: int) -> BestNear:
        """Best-of-N by Q."""
        return BestNear(critic, self.surroundings.proposal(num_near, self.plan.offset_std))

    def opex(self, critic: Critic, step_size: float) -> OPEX | None:
        """OPEX by Q; None for a step of 0."""
        if step_size == 0.0:
            return None
        return OPEX(critic, step_size / self.plan.num_steps, num_steps=self.plan.num_steps, direction=L2())

    @cached_property
    def best(self) -> str:
        """The better of the rungs by Q, if it gains beyond chance and more than next to nothing; else the policy.

        It is the better one on the reporting seeds, which costs half of the level: a few starts where the policy is
        lost may all be missing among the selection seeds.
        """
        policy = self._rungs[POLICY]
        tried = [self._rungs[name] for name in (BEST_OF_N, OPEX_STEP) if name in self._rungs]
        tried = [rung for rung in tried if rung.returns is not policy.returns and np.isfinite(rung.returns).all()]
        if not tried:
            return POLICY
        best = max(tried, key=lambda rung: rung.summary.mean)
        difference, p_value = against(best, policy)
        means = [rung.summary.mean for rung in (policy, self._rungs[CONTROL], *tried)]
        worth = difference.mean_difference > _WORTH_WHILE * (np.nanmax(means) - np.nanmin(means))
        return best.name if worth and is_gain(difference, p_value, len(tried)) else POLICY

    @property
    def best_rule(self) -> Rule | None:
        """What it does; None for the policy as it is."""
        return None if self.best == POLICY else self._chosen[self.best].option.rule

    @cached_property
    def picks(self) -> tuple[Rule, ...]:
        """The rules by Q as they were chosen: what the truth may choose, too."""
        rules = [self._chosen[name].option.rule for name in (BEST_OF_N, OPEX_STEP) if name in self._chosen]
        return tuple(rule for rule in rules if rule is not None)

    # ---------------------------------------------------------------------------------------- putting together

    def ladder(self, truth: TruthRung | str) -> Ladder:
        """All rungs with their differences; `truth` is what was played, or why it was not."""
        policy, control = self._rungs[POLICY], self._rungs.get(CONTROL)
        rungs = dict(self._rungs)
        for name, rung in self._rungs.items():
            if name not in (POLICY, BEHAVIOUR):
                rungs[name] = paired_to_policy(rung, policy, None if name == ORACLE else control)
        segment_range, left = None, 0.0
        if isinstance(truth, str):
            self._missing[TRUTH] = truth
        else:
            rungs[TRUTH] = self._truth(truth)
            if truth.inside is not None:
                rungs[TRUTH_INSIDE] = self._truth_inside(truth.policy, truth.inside)
            if truth.control is None:
                left = float(np.mean(truth.guided - truth.base))
            else:
                means = [float(np.mean(part)) for part in (truth.policy, truth.base, truth.guided, truth.control)]
                segment_range = max(means) - min(means[0], means[3])
        top = rungs[self.best].summary.mean + left
        span, noise = range_of([rung for name, rung in rungs.items() if name not in (TRUTH, TRUTH_INSIDE)], top)
        for name, rung in rungs.items():
            if rung.paired is not None:
                unit = segment_range if rung.unit == "segment" and segment_range is not None else span
                rungs[name] = replace(rung, gain=scaled(rung.paired, unit))
        return Ladder(
            rungs=tuple(rungs[name] for name in RUNGS if name in rungs),
            range=span,
            range_noise=noise,
            segment_range=segment_range,
            best=self.best,
            share_outside=self.share_outside,
            regret_edge=self.regrets.get("edge"),
            regret_outside=self.regrets.get("outside"),
            reference=self._reference(rungs, span),
            missing=self._missing,
            num_selection=self.plan.selection_episodes,
        )

    def _truth(self, truth: TruthRung) -> Rung:
        base = Rung(self.best, "", truth.base, unit=truth.unit)
        guided = Rung(
            TRUTH, "best of the candidates by the truth", truth.guided, unit=truth.unit, note=truth.note,
            seconds=truth.seconds,
        )  # fmt: skip
        paired, p_value = against(guided, Rung(POLICY, "", truth.policy))
        remaining, remaining_p = against(guided, base)
        return replace(
            guided,
            paired=paired,
            rank_p_value=p_value,
            control=self.best,
            against_control=remaining,
            control_p_value=remaining_p,
        )

    @staticmethod
    def _truth_inside(policy: Array, guided: Array) -> Rung:
        rung = Rung(TRUTH_INSIDE, "the policy, best by the truth inside the data's region only", guided)
        paired, p_value = against(rung, Rung(POLICY, "", policy))
        return replace(rung, paired=paired, rank_p_value=p_value)

    def _reference(self, rungs: dict[str, Rung], span: float) -> Reference | None:
        """The oracle, or else the best tenth of the data's trajectories; only where it is well above the policy."""
        policy = rungs[POLICY].summary.mean
        if ORACLE in rungs:
            name, level = rungs[ORACLE].title, rungs[ORACLE].summary.mean
        else:
            returns = np.sort(np.asarray(self.dataset.returns))
            top = returns[-max(1, round(_BEST_TRAJECTORIES * len(returns))) :]
            name, level = f"the best {len(top)} of the data's {len(returns)} trajectories", float(top.mean())
        gap = level - policy
        if not gap > _LEAST_GAP * span:
            return None
        shares = {
            other: rung.paired.mean_difference / gap
            for other, rung in rungs.items()
            if rung.paired is not None and rung.unit == "episode"
        }
        return Reference(name, level, shares)

    def _select(self, name: str, options: Sequence[Option]) -> Chosen:
        self._chosen[name] = self.player.select(name, options)
        return self._chosen[name]

    def _play(
        self, name: str, title: str, rule: Rule | None, chosen: Chosen | None = None, policy: Predictor | None = None
    ) -> None:
        same = rule is None and policy is None
        returns = self._rungs[POLICY].returns if same else self.player.report(name, rule, policy)
        self._rungs[name] = Rung(
            name,
            title,
            returns,
            choice={} if chosen is None else chosen.option.choice,
            selection=() if chosen is None else chosen.trials,
            seconds=self.player.seconds_of(name),
        )
