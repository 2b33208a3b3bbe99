"""What steering does to an agent, beside its controls, on the same episodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import EpisodePlan, EpisodeStore, Evaluation, evaluate
from offline_eval.episodes.plan import planned
from offline_eval.errors import InputError
from offline_eval.stats import PairedDifference, paired_difference
from offline_eval.stats.comparison import difference_without_interval
from offline_eval.steering.credit import Credit, highest, is_control, not_played
from offline_eval.types import Adaptable, Critic, Predictor, Rule
from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    GaussianProposal,
    Min,
    RandomDirection,
    ShuffledSoftSteer,
    SoftSteer,
    TestTimeTraining,
)
from offline_eval.wrappers.controls import trivial_rules

if TYPE_CHECKING:
    from offline_eval.wrappers.directions import Direction, Reduction

PLAIN = "plain"
"""The unsteered policy: the row of step size 0."""

CONTROLS = ("random", "multiply", "placebo")
_WORDS = {"times": "multiply", "placebo": "placebo"}


@dataclass(frozen=True)
class Variant:
    """One row of the study.

    Attributes:
        name: unique in the study.
        rule: None for the unsteered policy.
        step_size: length or coefficient of a step, None where the rule has none.
        control: name of the random direction that is as long as this one; None for a control, or without one.
        learning_rate: of test-time training, None for other rules.
    """

    name: str
    rule: Rule | None
    step_size: float | None = None
    control: str | None = None
    learning_rate: float | None = None


@dataclass(frozen=True)
class SteeringRow:
    """A variant and what it did.

    Attributes:
        variant: what was played.
        evaluation: its episodes.
        paired: difference to the unsteered policy on the same episodes; None for the policy itself.
        against_control: difference to the best control on the same episodes; None for a control, or without one.
        best_control: its name: of the controls that were played, the one with the highest mean.
        credit: whether its gain is its own; None for the plain policy and for controls.
    """

    variant: Variant
    evaluation: Evaluation
    paired: PairedDifference | None
    against_control: PairedDifference | None
    best_control: str | None = None
    credit: Credit | None = None


def steering_variants(
    critic: Critic,
    step_sizes: Sequence[float] = (0.05, 0.2),
    *,
    direction: Direction | None = None,
    reduce: Reduction | None = None,
    num_steps: int = 1,
    best_of: Sequence[int] = (),
    proposal_std: float = 0.2,
    learning_rates: Sequence[float] = (),
    actor: Adaptable | None = None,
    rules: Mapping[str, Rule] | None = None,
    controls: Sequence[str] = CONTROLS,
) -> list[Variant]:
    """OPEX at each step size, best-of-N at each number, test-time training at each learning rate, and their controls.

    Args:
        critic: rates the actions.
        step_sizes: 0 stands for the unsteered policy, which is always there.
        direction: of an OPEX step, `L2()` if left out: a step of `step_size` in the scaled space.
        reduce: how the critic's heads become one value, `Min()` if left out.
        num_steps: OPEX steps.
        best_of: numbers of candidates for best-of-N.
        proposal_std: spread of the candidates around the policy's action, scaled space.
        learning_rates: of test-time training; the actor's last layer, Adam, 16 replayed states, reset each episode.
        actor: of the policy that acts (`offline_eval.policies.actor_of`); test-time training needs it.
        rules: any further ones, by the names of their rows.
        controls: "random" (a random direction of the same length, for each steered row; its values in a random order
            where actions are discrete), "multiply" (actions times 1.1 and 1.2) and "placebo" (noise of 1e-6, which
            only re-draws chaos).
    """
    for word in controls:
        if word not in CONTROLS:
            raise InputError("controls", f"must be among {', '.join(CONTROLS)}", word)
    direction, reduce = direction or L2(), reduce or Min()
    steered: list[tuple[str, Rule, float | None]] = []
    for step_size in dict.fromkeys(step_sizes):
        if step_size == 0:
            continue
        rule = OPEX(critic, step_size, num_steps=num_steps, direction=direction, reduce=reduce)
        steered.append((f"OPEX {step_size:g}", rule, step_size))
    for num_samples in dict.fromkeys(best_of):
        rule_of_n = BestOfN(critic, num_samples, GaussianProposal(proposal_std), reduce=reduce)
        steered.append((f"best of {num_samples}", rule_of_n, None))
    if learning_rates and actor is None:
        raise InputError("actor", "must be given for test-time training", None, "`actor_of(model)`")
    for rate in dict.fromkeys(learning_rates):
        assert actor is not None
        steered.append((f"ttt {rate:g}", TestTimeTraining(actor, critic, rate, reduce=reduce), None))
    for name, given in (rules or {}).items():
        steered.append((name, given, getattr(given, "step_size", None)))

    variants = [Variant(PLAIN, None, 0.0)]
    for name, steering_rule, step in steered:
        own = _own_control(name, steering_rule, step) if "random" in controls else None
        rate_of = steering_rule.learning_rate if isinstance(steering_rule, TestTimeTraining) else None
        variants.append(Variant(name, steering_rule, step, None if own is None else own.name, rate_of))
        if own is not None:
            variants.append(own)
    return variants + [
        Variant(name, rule) for name, rule in trivial_rules().items() if _WORDS[name.split()[0]] in controls
    ]


def _own_control(name: str, rule: Rule, step_size: float | None) -> Variant | None:
    """What goes as far as the rule and knows nothing; None for a rule that is a control itself."""
    if isinstance(rule, SoftSteer):
        return Variant(f"shuffled as {name}", ShuffledSoftSteer(rule), step_size)
    if is_control(rule):
        return None
    return Variant(f"random as {name}", RandomDirection(like=rule), step_size)  # type: ignore[arg-type]  # it looks


def steer(
    model: Predictor,
    env: EnvironmentLike,
    variants: Sequence[Variant],
    plan: EpisodePlan | int | None = None,
    *,
    store: EpisodeStore | None = None,
    **options: Any,
) -> list[SteeringRow]:
    """Play every variant on the same episodes and pair them.

    Args:
        model: anything with SB3's `predict`.
        env: an id, a spec or a factory (a finished environment works too).
        variants: from `steering_variants`, or your own; the unsteered policy is added where it is missing.
        plan: the episodes, or how many, from seed 0; 20 of them if left out.
        store: keeps the episodes of each variant under its name, as in `evaluate`.
        options: further keywords of `evaluate`.
    """
    plan = EpisodePlan.seeded() if plan is None else planned(plan)
    if all(variant.rule is not None for variant in variants):
        variants = [Variant(PLAIN, None, 0.0), *variants]
    evaluations: dict[str, Evaluation] = {}
    for variant in variants:
        evaluations[variant.name] = evaluate(
            model,
            env,
            plan,
            rule=variant.rule,
            store=None if store is None else store.of(variant.name),
            **options,
        )
        if evaluations[variant.name].invariance.fresh:  # pairs are to be of one kind, and it need not be found twice
            options["fresh"] = True
    return steering_rows(variants, evaluations)


def steering_rows(
    variants: Sequence[Variant], evaluations: Mapping[str, Evaluation], controls: Collection[str] = ()
) -> list[SteeringRow]:
    """Each variant beside the unsteered policy, and each steered one beside the best of its controls.

    A variant's controls are the random direction that is as long as its own step, and whatever else needs no critic
    and belongs to no other variant.

    Args:
        variants: what was played, the unsteered policy among them.
        evaluations: of each by its name, on the same episodes.
        controls: names of further variants that are controls; random directions, longer actions and placebos are.
    """
    plain = next(variant.name for variant in variants if variant.rule is None)
    owned = {variant.control for variant in variants} - {None}
    trivial = {v.name: v.rule for v in variants if is_control(v.rule) or v.name in owned or v.name in controls}
    rows = []
    for variant in variants:
        mine = evaluations[variant.name]
        if variant.name == plain:
            rows.append(SteeringRow(variant, mine, None, None))
            continue
        paired = _difference(mine, evaluations[plain])
        if variant.name in trivial:
            rows.append(SteeringRow(variant, mine, paired, None))
            continue
        rivals = {name: rule for name, rule in trivial.items() if name not in owned or name == variant.control}
        best = highest({name: evaluations[name].returns for name in rivals})
        against = None if best is None else _difference(mine, evaluations[best])
        lead = None if against is None else against.ci95
        credit = Credit(paired.ci95, lead, best, not_played(rivals.values()))
        rows.append(SteeringRow(variant, mine, paired, against, best, credit))
    return rows


def _difference(one: Evaluation, other: Evaluation) -> PairedDifference:
    difference = paired_difference(one.returns, other.returns)
    return difference if one.independent and other.independent else difference_without_interval(difference)
