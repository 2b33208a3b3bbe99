"""Several rules in one rollout: the same episodes as one rule after the other."""

import numpy as np
import pytest
from environments import Counter, Zero
from episode_stores import MemoryStore
from gymnasium.wrappers import TimeLimit
from linear_quadratic import Linear, LinearQuadratic, exact_q, limited
from stable_baselines3 import SAC

from offline_eval.episodes import EpisodePlan, evaluate, evaluate_rules
from offline_eval.errors import InputError
from offline_eval.policies import actor_of, critic_of
from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    Guarded,
    LineSearch,
    MultiplyAction,
    Placebo,
    RandomDirection,
    TestTimeTraining,
)
from offline_eval.wrappers.stacking import stack

PLAN = EpisodePlan.seeded(3, seed=5)


def critic():
    return critic_of(exact_q(), action_space=LinearQuadratic.action_space, gamma=0.9, action_units="environment")


def rules():
    rated_by = critic()
    small, large = (OPEX(rated_by, size, direction=L2()) for size in (0.1, 0.4))
    return {
        "plain": None,
        "small": small,
        "best": BestOfN(rated_by, 4),
        "large": large,
        "random as small": RandomDirection(like=small),
        "random as large": RandomDirection(like=large),
        "random": RandomDirection(0.1),
        "search": Guarded(small, LineSearch(4)),
        "search far": Guarded(large, LineSearch(4)),
        "times 1.1": MultiplyAction(1.1),
        "times 1.2": MultiplyAction(1.2),
        "placebo": Placebo(1e-3),
    }


def test_rules_that_differ_in_their_number_share_a_place():
    rules_of = list(rules().values())
    places = stack(rules_of)
    assert [place.row for place in places] == [None, 0, None, 1, 0, 1, None, 0, 1, 0, 1, None]
    assert places[1].rule is places[3].rule
    assert places[1].rule.step_size == (0.1, 0.4)
    assert places[4].rule.like.step_size == (0.1, 0.4)
    assert places[8].rule.rule.step_size == (0.1, 0.4)
    assert places[9].rule.factor == (1.1, 1.2)
    assert places[2].rule is rules_of[2]
    assert places[0].rule is None
    assert rules_of[1].step_size == 0.1


def test_rules_with_another_critic_or_direction_stay_apart():
    one, other = critic(), critic()
    rules_of = [OPEX(one, 0.1), OPEX(other, 0.2), OPEX(one, 0.3, direction=L2()), OPEX(one, 0.4, num_steps=2)]
    assert [place.row for place in stack(rules_of)] == [None] * 4
    per_row = OPEX(one, [0.1, 0.2])
    assert [place.row for place in stack([per_row, per_row])] == [None] * 2
    guarded = [Guarded(OPEX(one, 0.1), LineSearch(4)), Guarded(OPEX(one, 0.2), LineSearch(8))]
    assert [place.row for place in stack(guarded)] == [None] * 2


@pytest.mark.parametrize("n_envs", [1, 4, 50])
def test_the_episodes_are_those_of_one_rule_after_the_other(n_envs):
    together = evaluate_rules(Linear(offset=0.3), limited(steps=12), PLAN, rules(), n_envs=n_envs)
    for name, rule in rules().items():
        alone = evaluate(Linear(offset=0.3), limited(steps=12), PLAN, rule=rule)
        assert together[name].episodes == alone.episodes, name
        assert together[name].recipe == alone.recipe


@pytest.mark.parametrize("n_envs", [1, 5])
def test_each_learning_rate_has_a_memory_of_its_own(n_envs):
    model = SAC("MlpPolicy", "Pendulum-v1", seed=0, policy_kwargs={"net_arch": [8]}, device="cpu")
    training = {rate: TestTimeTraining(actor_of(model), critic_of(model), rate) for rate in (1e-3, 1e-2)}
    some = {"plain": None, **{f"ttt {rate:g}": rule for rate, rule in training.items()}}
    together = evaluate_rules(model, "Pendulum-v1", PLAN, some, n_envs=n_envs, step_limit=8)
    for name, rule in some.items():
        assert together[name].episodes == evaluate(model, "Pendulum-v1", PLAN, rule=rule, step_limit=8).episodes
    assert len({tuple(evaluation.returns) for evaluation in together.values()}) == 3


def test_workers_change_nothing():
    some = {name: rule for name, rule in rules().items() if name in ("plain", "times 1.1", "times 1.2")}
    here = evaluate_rules(Linear(offset=0.3), limited(steps=12), PLAN, some)
    there = evaluate_rules(Linear(offset=0.3), limited(steps=12), PLAN, some, workers=2)
    assert [here[name].episodes for name in some] == [there[name].episodes for name in some]


def test_finished_episodes_are_not_played_again():
    everything = evaluate_rules(Linear(), limited(steps=5), PLAN, {"a": None, "b": MultiplyAction(1.1)})
    store = MemoryStore({"a": everything["a"].episodes[1:], "b": everything["b"].episodes[:1]})
    again = evaluate_rules(
        Linear(),
        limited(steps=5),
        PLAN,
        {"a": None, "b": MultiplyAction(1.1)},
        store=store,
    )
    assert sorted((name, episode.index) for name, episode in store.told) == [("a", 0), ("b", 1), ("b", 2)]
    assert [e.episodes for e in again.values()] == [e.episodes for e in everything.values()]


def test_an_environment_that_fails_fails_in_its_own_row():
    def factory():
        return TimeLimit(Counter(length=None, raise_at=(6, 2)), 4)

    evaluations = evaluate_rules(Zero(), factory, PLAN, {"plain": None, "times": MultiplyAction(2.0)})
    for evaluation in evaluations.values():
        assert [episode.failed is not None for episode in evaluation.episodes] == [False, True, False]
        assert [episode.index for episode in evaluation.episodes] == [0, 1, 2]
        np.testing.assert_array_equal(evaluation.returns, [4.0, np.nan, 4.0])


def test_no_rule_is_refused():
    with pytest.raises(InputError, match="rules"):
        evaluate_rules(Zero(), Counter, PLAN, {})
