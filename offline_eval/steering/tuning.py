"""Steering chosen by a gated trial: many candidates on selection seeds, the winner confirmed on fresh ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import EpisodePlan, EpisodeStore, Evaluation, evaluate_rules
from offline_eval.episodes.plan import planned
from offline_eval.errors import InputError, bare
from offline_eval.policies import actor_of, critic_of
from offline_eval.stats import PairedDifference, paired_difference
from offline_eval.stats.samples import finite_or_none
from offline_eval.steering.selection import Choice, Gate, choose, t_statistic
from offline_eval.steering.steering import PLAIN, SteeringRow, Variant, steering_rows
from offline_eval.types import Adaptable, Critic, Predictor, Rule
from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    GaussianProposal,
    Guarded,
    LineSearch,
    RandomDirection,
    TestTimeTraining,
)
from offline_eval.wrappers.controls import trivial_rules

SELECTION_SEED = 1000
_STEP_SIZES = (0.01, 0.03, 0.1, 0.2, 0.4, 1.0)
_LEARNING_RATES = (3e-4, 1e-3, 3e-3)
_RANDOM_LENGTHS = (0.1, 0.4)


@dataclass(frozen=True)
class TrialRow:
    """A variant on the selection episodes.

    Attributes:
        variant: what was played.
        control: whether it is a trivial control, which a winner must beat and which cannot win.
        evaluation: its episodes.
        paired: difference to the unsteered policy; None for the policy itself.
        t: that difference in standard errors; NaN for the policy itself.
    """

    variant: Variant
    control: bool
    evaluation: Evaluation
    paired: PairedDifference | None
    t: float


@dataclass(frozen=True)
class Tuning:
    """A trial, what it chose, and what the choice did on fresh seeds.

    Attributes:
        trial: every variant on the selection episodes; the unsteered policy first.
        choice: which candidate led, and whether it cleared the gate.
        confirmation: the winner on fresh seeds, beside the unsteered policy and the controls; empty without a winner.
    """

    trial: tuple[TrialRow, ...]
    choice: Choice
    confirmation: tuple[SteeringRow, ...]

    @property
    def winner(self) -> Variant | None:
        """What to steer with; None: no gain, leave the policy as it is."""
        return next((row.variant for row in self.trial if row.variant.name == self.choice.winner), None)

    @property
    def rule(self) -> Rule | None:
        """The winner's rule, as `evaluate` and the hosts take it; None without a winner."""
        return None if self.winner is None else self.winner.rule

    @property
    def confirmed(self) -> SteeringRow | None:
        """The winner's row on fresh seeds; None without a winner."""
        return next((row for row in self.confirmation if row.variant.name == self.choice.winner), None)

    @property
    def gain(self) -> float:
        """What following this trial changed on fresh seeds, mean of the paired differences: 0 where nothing won."""
        return 0.0 if self.confirmed is None or self.confirmed.paired is None else self.confirmed.paired.mean_difference

    @property
    def holds(self) -> bool | None:
        """Whether fresh seeds say that the gain is steering's own, as `steer` would say it; None without a winner."""
        if self.confirmed is None or self.confirmed.credit is None:
            return None
        return self.confirmed.credit.is_own

    def to_json(self) -> dict[str, Any]:
        """Plain data; the episodes themselves are in the evaluations."""
        return {
            "choice": self.choice.to_json(),
            "gain": self.gain,
            "holds": self.holds,
            "trial": [
                {
                    "rule": row.variant.name,
                    "step_size": row.variant.step_size,
                    "learning_rate": row.variant.learning_rate,
                    "recipe": row.evaluation.recipe,
                    "control": row.control,
                    "mean": row.evaluation.summary.mean,
                    "returns": row.evaluation.returns.tolist(),
                    "steering": row.evaluation.steering,
                    "paired": None if row.paired is None else row.paired.to_json(),
                    "t": finite_or_none(row.t),
                }
                for row in self.trial
            ],
            "confirmation": [
                {
                    "rule": row.variant.name,
                    "mean": row.evaluation.summary.mean,
                    "returns": row.evaluation.returns.tolist(),
                    "paired": None if row.paired is None else row.paired.to_json(),
                    "best_control": row.best_control,
                    "against_control": None if row.against_control is None else row.against_control.to_json(),
                }
                for row in self.confirmation
            ],
        }


def tuning_candidates(critic: Critic, actor: Adaptable | None = None) -> list[Variant]:
    """What a trial tries by default: two decades of step size, many small steps, line search, best-of-N, training.

    Args:
        critic: rates the actions.
        actor: what test-time training trains (`offline_eval.policies.actor_of`); None leaves training out.
    """
    variants = [Variant(f"OPEX {size:g}", OPEX(critic, size, direction=L2()), size) for size in _STEP_SIZES]
    variants.append(Variant("OPEX 10 x 0.1", OPEX(critic, 0.1, num_steps=10, direction=L2()), 0.1))
    for cap in (0.2, 0.8):
        searching = Guarded(OPEX(critic, cap, direction=L2()), LineSearch())
        variants.append(Variant(f"line search {cap:g}", searching, cap))
    for num_samples, std in ((8, 0.2), (32, 0.2), (32, 0.5)):
        variants.append(Variant(f"best of {num_samples}, {std:g}", BestOfN(critic, num_samples, GaussianProposal(std))))
    if actor is not None:
        for rate in _LEARNING_RATES:
            training = TestTimeTraining(actor, critic, rate)
            variants.append(Variant(f"TTT {rate:g}", training, learning_rate=rate))
    return variants


def trainable(model: Any) -> Adaptable | None:
    """The model's actor where torch can differentiate it, else None: a trial then does without training."""
    try:
        return actor_of(model)
    except InputError:
        return None


def trivial_controls() -> list[Variant]:
    """What needs no critic: actions times 1.1 and 1.2, random directions, a placebo."""
    return [
        *(Variant(name, rule) for name, rule in trivial_rules().items()),
        *(Variant(f"random {size:g}", RandomDirection(size), size) for size in _RANDOM_LENGTHS),
    ]


def tune_steering(
    model: Predictor,
    env: EnvironmentLike,
    critic: Critic | None = None,
    candidates: Sequence[Variant] | None = None,
    *,
    controls: Sequence[Variant] | None = None,
    selection_plan: EpisodePlan | None = None,
    plan: EpisodePlan | int | None = None,
    gate: Gate | None = None,
    store: EpisodeStore | None = None,
    **options: Any,
) -> Tuning:
    """Try every candidate on the selection episodes, and confirm the winner on fresh ones.

    All candidates and controls are played side by side in one rollout (`evaluate_rules`). The candidate with the
    highest mean return wins if it clears the gate and beats the best trivial control; where it does not, the best of
    those that clear a dearer gate does (`choose`). The winner is played on fresh seeds beside the unsteered policy, the
    controls, and a random direction as long as its own steps. "No gain" is an answer: then nothing is played any more.

    Args:
        model: anything with SB3's `predict`.
        env: an id, a spec or a factory.
        critic: rates the actions; the model's own if left out.
        candidates: `tuning_candidates(critic, actor)` if left out, with training where the model can be trained.
        controls: `trivial_controls()` if left out.
        selection_plan: where the choice is made; 10 episodes with seeds from 1000 if left out.
        plan: fresh episodes, or how many, from seed 0; 20 if left out.
        gate: what a winner must clear, `Gate()` if left out.
        store: keeps the episodes of each variant under "selection: NAME" or "confirmation: NAME", as in `evaluate`.
        options: further keywords of `evaluate_rules`: `n_envs`, `workers`, `step_limit`, ...

    Raises:
        InputError: the two plans share a seed, or names are not unique.
    """
    if candidates is None:
        candidates = tuning_candidates(critic_of(model) if critic is None else critic, trainable(model))
    controls = trivial_controls() if controls is None else controls
    selection_plan = EpisodePlan.seeded(10, SELECTION_SEED) if selection_plan is None else planned(selection_plan)
    plan = EpisodePlan.seeded() if plan is None else planned(plan)
    _check(candidates, controls, selection_plan, plan)

    def play(part: str, variants: Sequence[Variant], episodes: EpisodePlan) -> dict[str, Evaluation]:
        return evaluate_rules(
            model,
            env,
            episodes,
            {variant.name: variant.rule for variant in variants},
            store=None if store is None else store.of(part),
            **options,
        )

    plain = Variant(PLAIN, None, 0.0)
    everything = [plain, *candidates, *controls]
    tried = play("selection", everything, selection_plan)
    choice = choose(
        tried[PLAIN].returns,
        {variant.name: tried[variant.name].returns for variant in candidates},
        {variant.name: tried[variant.name].returns for variant in controls},
        gate,
    )
    trial = tuple(_trial_row(variant, variant in controls, tried) for variant in everything)
    winner = next((variant for variant in candidates if variant.name == choice.winner), None)
    if winner is None:
        return Tuning(trial, choice, ())
    random = _random_as(winner, tried[winner.name])
    beside = [other for other in controls if not isinstance(other.rule, RandomDirection)]
    fresh = [plain, replace(winner, control=random.name), random, *beside]
    rows = steering_rows(fresh, play("confirmation", fresh, plan), [other.name for other in beside])
    return Tuning(trial, choice, tuple(rows))


def _check(
    candidates: Sequence[Variant], controls: Sequence[Variant], selection_plan: EpisodePlan, plan: EpisodePlan
) -> None:
    if not candidates:
        raise InputError("candidates", "must hold at least one", candidates, "None takes the default ones")
    names = [PLAIN, *(variant.name for variant in (*candidates, *controls))]
    for name in names:
        if names.count(name) > 1:
            raise InputError("candidates", "must have names of their own", name, f"{PLAIN!r} is the unsteered policy")
    if len(selection_plan) < 2:
        raise InputError("selection_plan", "must hold at least 2 episodes", bare(f"{len(selection_plan)}"), "take 10")
    shared = {entry.seed for entry in selection_plan} & {entry.seed for entry in plan}
    if shared:
        way_out = "what chose a rule cannot confirm it: give the two plans other seeds"
        raise InputError("plan", "must share no seed with `selection_plan`", sorted(shared), way_out)


def _random_as(winner: Variant, tried: Evaluation) -> Variant:
    """A random direction as far as the winner goes: step by step where the rule can be asked, else on average."""
    rule: Any = winner.rule
    try:
        return Variant(f"random as {winner.name}", RandomDirection(like=rule), winner.step_size)
    except InputError:  # a rule of the caller's own
        length = float(tried.steering.get("displacement", 0.0))
        return Variant(f"random as {winner.name}", RandomDirection(length), length)


def _trial_row(variant: Variant, control: bool, tried: Mapping[str, Evaluation]) -> TrialRow:
    mine, plain = tried[variant.name], tried[PLAIN].returns
    if variant.name == PLAIN:
        return TrialRow(variant, False, mine, None, float("nan"))
    return TrialRow(variant, control, mine, paired_difference(mine.returns, plain), t_statistic(mine.returns, plain))
