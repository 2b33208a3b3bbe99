"""A wrapper of a rule that changes nothing is the rule, bit for bit, whatever the rule asks of its host."""

import numpy as np
import pytest
import torch as th

from offline_eval import EpisodePlan, critic_of, evaluate
from offline_eval.policies import actor_of
from offline_eval.types import Remembering
from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    CudaGraph,
    Drawn,
    Fused,
    Guarded,
    MultiplyAction,
    Never,
    Placebo,
    RandomDirection,
    ShuffledSoftSteer,
    SoftSteer,
    TestTimeTraining,
    TrustRadius,
    Where,
)
from offline_eval.wrappers.cuda_graph import Recorded
from offline_eval.wrappers.remembering import begin, forgets, started
from offline_eval.wrappers.rule_wrapper import RuleWrapper

PLAN = EpisodePlan.seeded(3, seed=5)


def everywhere(observations):
    return th.ones(len(observations), dtype=th.bool)


def nowhere(observations):
    return th.zeros(len(observations), dtype=th.bool)


def as_it_is(function, examples):
    """Stands for the recorder of a GPU: calls the function again."""
    return lambda tensors: function(*tensors)


CONTINUOUS = {
    "OPEX": lambda model: OPEX(critic_of(model), 0.3, direction=L2()),
    "BestOfN": lambda model: BestOfN(critic_of(model), 4),
    "MultiplyAction": lambda model: MultiplyAction(1.3),
    "Placebo": lambda model: Placebo(0.1),
    "RandomDirection": lambda model: RandomDirection(0.3),
    "RandomDirection like": lambda model: RandomDirection(like=OPEX(critic_of(model), 0.3)),
    "TestTimeTraining": lambda model: TestTimeTraining(actor_of(model), critic_of(model), 3e-2),
    "RandomDirection like training": lambda model: RandomDirection(
        like=TestTimeTraining(actor_of(model), critic_of(model), 3e-2)
    ),
    "Guarded training": lambda model: Guarded(
        TestTimeTraining(actor_of(model), critic_of(model), 3e-2), TrustRadius(0.2)
    ),
}
DISCRETE = {
    "SoftSteer": lambda critic: SoftSteer(critic, 0.1),
    "SoftSteer drawn": lambda critic: SoftSteer(critic, 1.0, choose=Drawn()),
    "ShuffledSoftSteer": lambda critic: ShuffledSoftSteer(SoftSteer(critic, 0.1)),
}
NEUTRAL = {
    "Where": lambda rule, model: Where(rule, everywhere),
    "Guarded": lambda rule, model: Guarded(rule, TrustRadius(1e9), critic=critic_of(model)),
}
MEMORY = {**NEUTRAL, "Fused": lambda rule, model: Fused(actor_of(model), rule)}


def same_table(one, other):
    np.testing.assert_array_equal(one.returns, other.returns)
    assert [episode.length for episode in one.episodes] == [episode.length for episode in other.episodes]


@pytest.mark.parametrize("wrap", NEUTRAL.values(), ids=NEUTRAL)
@pytest.mark.parametrize("make", CONTINUOUS.values(), ids=CONTINUOUS)
def test_a_wrapper_that_changes_nothing_is_the_rule(make, wrap, tiny_td3):
    rule = make(tiny_td3)
    plain = evaluate(tiny_td3, "Pendulum-v1", PLAN, rule=rule, step_limit=8)
    wrapped = evaluate(tiny_td3, "Pendulum-v1", PLAN, rule=wrap(rule, tiny_td3), step_limit=8)
    same_table(plain, wrapped)


@pytest.mark.parametrize("make", CONTINUOUS.values(), ids=CONTINUOUS)
def test_an_actor_and_a_rule_as_one_are_the_rule_at_the_actor(make, tiny_td3):
    actor, observations = actor_of(tiny_td3), th.randn(5, 8, 3, generator=th.Generator().manual_seed(0))
    alone, fused = make(tiny_td3), Fused(actor, make(tiny_td3))
    shape = alone.noise_shape(1)
    assert fused.noise_shape(1) == shape
    alone, fused = started(alone), started(fused)
    for rule in (alone, fused):
        begin(rule, range(8))
    for seen in observations:
        noise = th.randn(8, *shape, generator=th.Generator().manual_seed(1)) if shape else None
        with th.no_grad():
            own = actor.mean(seen)
        expected = alone(seen, own, noise).actions.clamp(-1.0, 1.0)
        assert fused(seen, th.full_like(own, th.nan), noise).actions.equal(expected)


@pytest.mark.parametrize("wrap", [lambda rule: Recorded(rule, as_it_is), CudaGraph], ids=["Recorded", "CudaGraph"])
@pytest.mark.parametrize("name", [name for name in CONTINUOUS if "raining" not in name])
def test_a_recorded_rule_is_the_rule(name, wrap, tiny_td3):
    rule = CONTINUOUS[name](tiny_td3)
    plain = evaluate(tiny_td3, "Pendulum-v1", PLAN, rule=rule, step_limit=8)
    same_table(plain, evaluate(tiny_td3, "Pendulum-v1", PLAN, rule=wrap(rule), step_limit=8))


@pytest.mark.parametrize(
    "wrap",
    [lambda rule: Where(rule, everywhere), CudaGraph, lambda rule: Recorded(rule, as_it_is)],
    ids=["Where", "CudaGraph", "Recorded"],
)
@pytest.mark.parametrize("make", DISCRETE.values(), ids=DISCRETE)
def test_a_rule_that_asks_the_policy_is_asked_through_a_wrapper(make, wrap, tiny_ppo, tiny_dqn):
    rule = make(critic_of(tiny_dqn))
    plain = evaluate(tiny_ppo, "CartPole-v1", PLAN, rule=rule)
    same_table(plain, evaluate(tiny_ppo, "CartPole-v1", PLAN, rule=wrap(rule)))


def test_a_rule_of_which_nothing_is_taken_leaves_the_policy(tiny_td3):
    rule = TestTimeTraining(actor_of(tiny_td3), critic_of(tiny_td3), 3e-2)
    plain = evaluate(tiny_td3, "Pendulum-v1", PLAN, step_limit=8)
    same_table(plain, evaluate(tiny_td3, "Pendulum-v1", PLAN, rule=Where(rule, nowhere), step_limit=8))


@pytest.mark.parametrize("wrap", MEMORY.values(), ids=MEMORY)
def test_a_memory_is_begun_and_given_room_through_a_wrapper(wrap, tiny_td3):
    asked = []

    class Remembers(MultiplyAction):
        width = 4

        def start(self):
            return self

        def begin(self, rows):
            asked.append(("begin", [int(row) for row in rows]))

        def reserve(self, num_rows):
            asked.append(("reserve", num_rows))

    rule = wrap(Remembers(1.0), tiny_td3)
    assert isinstance(rule, Remembering)
    assert rule.width == 4
    rule.reserve(7)
    rule.start().begin(np.array([2, 3]))
    assert asked == [("reserve", 7), ("begin", [2, 3])]


def test_a_memory_that_is_never_cleared_is_seen_through_wrappers(tiny_td3):
    lasting = TestTimeTraining(actor_of(tiny_td3), critic_of(tiny_td3), 3e-2, reset=Never())
    assert forgets(Where(OPEX(critic_of(tiny_td3), 0.1), everywhere))
    assert not forgets(Where(lasting, everywhere))
    assert not forgets(RandomDirection(like=Guarded(lasting, TrustRadius(0.1))))


def test_numbers_of_rows_are_chosen_through_wrappers():
    rule = Where(MultiplyAction([1.0, 2.0, 3.0]), everywhere)
    assert rule.num_rows == 3
    assert rule.rows(np.array([2, 0])).inner.factor == (3.0, 1.0)
    one_number = Where(MultiplyAction(1.0), everywhere)
    assert one_number.rows(np.array([1])) is one_number


def test_every_wrapper_of_rules_has_the_same_base():
    assert all(
        issubclass(kind, RuleWrapper)
        for kind in (CudaGraph, Fused, Guarded, RandomDirection, Recorded, ShuffledSoftSteer, Where)
    )
