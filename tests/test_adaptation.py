"""Test-time training: numbers worked out by hand on a linear policy and a parabola, then what must hold for any."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from episode_stores import MemoryStore
from gymnasium import spaces
from steered import FunctionCritic, pendulum, pendulum_critic, same_bits
from torch import nn

from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import CriticError, InputError, SpaceError
from offline_eval.policies import actor_of, weights_hash
from offline_eval.report.tables import steering_table
from offline_eval.steering.steering import Variant, steer, steering_variants
from offline_eval.wrappers import (
    Adam,
    AllParameters,
    GradientDescent,
    Guarded,
    KLAnchor,
    Latest,
    LineSearch,
    Mixture,
    Never,
    NormalizedGradient,
    RandomDirection,
    Replay,
    TestTimeTraining,
    fast_weights,
)
from offline_eval.wrappers.host import Steering

ONE = spaces.Box(-np.inf, np.inf, (1,))
CRITIC = FunctionCritic()


def linear(weight=0.5, bias=0.0, *behind):
    """The policy `weight * state + bias`."""
    layer = nn.Linear(1, 1)
    with th.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
    return actor_of(nn.Sequential(layer, *behind), action_space=CRITIC.action_space, observation_space=ONE)


def rule(learning_rate=0.01, actor=None, critic=CRITIC, **choices):
    choices = {"optimizer": GradientDescent(), "states": Latest(), **choices}
    return TestTimeTraining(actor or linear(), critic, learning_rate, **choices)


def play(training, states, noise=None, action=0.5):
    """One environment that sees these states: the executed actions, and the last step's metrics."""
    steering = Steering(training, None, CRITIC.action_space)
    steering.begin([0])
    executed = []
    for number, state in enumerate(states):
        drawn = None if noise is None else np.full((1, *steering.noise_shape), noise[number], dtype=np.float32)
        before = np.array([[action]], dtype=np.float32)
        after, metrics = steering(np.array([[state]], dtype=np.float32), before, drawn)
        executed.append(float(after[0, 0]))
    return executed, {name: float(values[0]) for name, values in metrics.items()}


# By hand. At state 1 the policy does 0.5, Q = -(1 - 0.5)^2 = -0.25, its slope is 2 * (1 - 0.5) = 1. Divided by the mean
# of |Q| that is 4 an action, so 4 for the weight (times the state, 1) and 4 for the bias.


def test_one_step_of_gradient_ascent():
    # Weight 0.54 and bias 0.04 act 0.58.
    (after,), metrics = play(rule(), [1.0])
    assert after == pytest.approx(0.58)
    assert metrics["displacement"] == pytest.approx(0.08)
    assert metrics["predicted_gain"] == pytest.approx(1.0 * 0.08, rel=1e-4)
    assert metrics["zero_gradient"] == metrics["non_finite"] == 0.0


def test_the_gain_is_asked_for_but_for_the_last_step():
    # From -0.25 to -(1 - 0.58)^2 in the first step; then by the slope 0.84.
    (_, second), metrics = play(rule(), [1.0, 1.0])
    assert metrics["predicted_gain"] == pytest.approx(0.25 - 0.1764 + 0.84 * (second - 0.58), rel=1e-4)
    # A draw of the policy's own changes nothing: it is the mean that has learnt.
    assert play(rule(), [1.0, 1.0], action=-0.2)[1]["predicted_gain"] == pytest.approx(metrics["predicted_gain"])


def test_the_other_optimisers_take_steps_of_their_own_length():
    # Length 1 over two equal parameters: each moves 0.01 / sqrt(2). Adam's first step is the sign: each moves 0.01.
    assert play(rule(optimizer=NormalizedGradient()), [1.0])[0][0] == pytest.approx(0.5 + 0.01 * 2**0.5)
    assert play(rule(optimizer=Adam()), [1.0])[0][0] == pytest.approx(0.52)


def test_adam_is_torchs():
    parameter = th.zeros(1, 3, requires_grad=True)
    theirs = th.optim.Adam([parameter], lr=0.1, maximize=True)
    moments, ours, optimizer = (th.zeros(1, 3), th.zeros(1, 3)), th.zeros(1, 3), Adam()
    for step in range(1, 6):
        gradient = th.tensor([[1.0, -0.2 * step, 1e-3]])
        parameter.grad = gradient.clone()
        theirs.step()
        direction, moments = optimizer(gradient, moments, th.full((1, 1), float(step)))
        ours = ours + 0.1 * direction
    th.testing.assert_close(ours, parameter.detach())


def test_what_is_learnt_stays_until_the_episode_ends():
    # Second step, from 0.58: slope 0.84 over |Q| 0.1764; the action moves by 2 * 0.01 * 4.7619.
    training = rule()
    (_, second), _ = play(training, [1.0, 1.0])
    assert second == pytest.approx(0.58 + 0.02 * 0.84 / 0.1764, rel=1e-5)
    steering = Steering(training, None, CRITIC.action_space)
    states, actions = np.ones((1, 1), np.float32), np.full((1, 1), 0.5, np.float32)
    ends = []
    for _ in range(2):
        steering.begin([0])
        ends.append([float(steering(states, actions, None)[0][0, 0]) for _ in range(2)])
    assert ends[0] == ends[1]
    assert ends[0][0] != ends[0][1]


def test_several_gradient_steps_after_one_observation():
    assert play(rule(gradient_steps=2), [1.0])[0][0] == pytest.approx(0.58 + 0.02 * 0.84 / 0.1764, rel=1e-5)


def test_a_policy_that_draws_is_moved_as_far_as_its_mean():
    assert play(rule(), [1.0], action=0.3)[0][0] == pytest.approx(0.38)


def test_the_kl_of_two_gaussians_with_a_floor():
    # (0.3 / 0.5)^2 / 2 = 0.18 where the floor holds, (0.3 / 1)^2 / 2 = 0.045 where the policy is wider; a sum.
    anchor = KLAnchor(1.0, std_floor=0.5)
    locations, frozen = th.tensor([[0.3, 0.3]]), th.zeros(1, 2)
    assert anchor(locations, frozen, th.tensor([[0.1, 1.0]])).item() == pytest.approx(0.18 + 0.045)
    assert anchor(locations, frozen, None).item() == pytest.approx(2 * 0.18)


def test_the_anchor_pulls_back():
    # It has no slope at first: 0.58. Then KL = 2 (a - 0.5)^2 has slope 4 * 0.08 = 0.32.
    _, second = play(rule(anchor=KLAnchor(1.0)), [1.0, 1.0])[0]
    assert second == pytest.approx(0.58 + 0.02 * (0.84 / 0.1764 - 0.32), rel=1e-5)


def test_replay_takes_the_mean_over_states_that_were_seen():
    # First at 0.8, alone: the action 0.4 has slope 0.8 over |Q| 0.16, so 5: the weight gains 0.04 and the bias 0.05.
    # Then at 1, with a noise of -3 that draws 0.8 again: actions 0.59 and 0.482 fall short by 0.41 and 0.318, with
    # slopes 0.82 and 0.636, over the sum 0.1681 + 0.101124 of their |Q|.
    executed, _ = play(rule(states=Replay(2)), [0.8, 1.0], noise=[0.0, -3.0])
    scale = 0.41**2 + 0.318**2
    weight, bias = (0.82 + 0.8 * 0.636) / scale, (0.82 + 0.636) / scale
    assert executed[1] == pytest.approx(0.59 + 0.01 * (weight + bias), rel=1e-5)
    # With a noise of 3 the second state is 1 again: as if it were alone.
    assert play(rule(states=Replay(2)), [0.8, 1.0], noise=[0.0, 3.0])[0][1] == pytest.approx(0.59 + 0.02 * 2 / 0.41)


def test_replay_draws_each_of_the_last_states_alike():
    from offline_eval.wrappers.seen_states import SeenStates

    seen = SeenStates(4, th.device("cpu"))
    seen.reserve(1)
    for value in range(6):
        where = seen.add(np.array([0]), {"observations": th.full((1, 1), float(value))})
    noise = th.as_tensor(np.random.default_rng(0).standard_normal((1, 4000)))
    drawn = seen.draw(where, noise)["observations"].flatten()
    assert drawn[0] == 5.0  # the latest comes first
    values, counts = drawn[1:].unique(return_counts=True)
    assert values.tolist() == [2.0, 3.0, 4.0, 5.0]
    assert ((counts - 1000).abs() < 100).all()
    extreme = seen.draw(where, th.tensor([[-40.0, 40.0]]))["observations"].flatten()
    assert extreme.tolist()[1:] == [4.0, 3.0]  # the first and the last place of the ring


def test_a_mixture_learns_from_the_data_too():
    # The data's only state is 1, the episode's 0, where there is nothing to gain.
    mixture = Mixture(np.ones((1, 1)), num_data=1, seen=Latest())
    assert play(rule(states=mixture), [0.0], noise=[0.0])[0][0] > 0.5
    assert play(rule(), [0.0])[0][0] == 0.5


# What must hold for any policy


def network(action_dim=1, obs_dim=3, seed=0):
    th.manual_seed(seed)
    return nn.Sequential(nn.Linear(obs_dim, 16), nn.ReLU(), nn.Linear(16, action_dim), nn.Tanh())


class Acts:
    """A policy made of a module, for Pendulum."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,))
    action_space = spaces.Box(-2.0, 2.0, (1,))

    def __init__(self, module):
        self.policy = module

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        with th.no_grad():
            return 2.0 * self.policy(th.as_tensor(observation)).numpy(), state


PENDULUM_CRITIC = pendulum_critic()
POLICY = Acts(network())
ACTOR = actor_of(POLICY.policy, action_space=Acts.action_space, observation_space=Acts.observation_space)
CHOICES = {
    "default": {},
    "latest": {"states": Latest()},
    "whole": {"parameters": AllParameters(), "optimizer": NormalizedGradient(), "states": Replay(3)},
    "anchored": {"anchor": KLAnchor(0.1), "gradient_steps": 2},
    "mixed": {"states": Mixture(np.eye(3), num_data=2)},
}


def returns(training, n_envs=3, make=lambda: pendulum(9), **options):
    return evaluate(POLICY, make, EpisodePlan.seeded(5, seed=1), rule=training, n_envs=n_envs, **options)


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_a_learning_rate_of_zero_gives_the_frozen_action_bit_for_bit(choices):
    steering = Steering(TestTimeTraining(ACTOR, PENDULUM_CRITIC, 0.0, **choices), None, Acts.action_space)
    steering.begin(range(4))
    generator = np.random.default_rng(0)
    for _ in range(5):
        observations = generator.standard_normal((4, 3)).astype(np.float32)
        actions = POLICY.predict(observations)[0]
        noise = steering.draw_noise([generator] * 4)
        after, metrics = steering(observations, actions, noise)
        assert same_bits(after, actions)
        assert not metrics["displacement"].any()
    assert not metrics["zero_gradient"].any()


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_the_table_does_not_depend_on_how_many_run_side_by_side(choices):
    training = TestTimeTraining(ACTOR, PENDULUM_CRITIC, 0.01, **choices)
    tables = [returns(training, n_envs) for n_envs in (1, 3, 5)]
    assert tables[0].invariant
    assert not np.array_equal(tables[0].returns, returns(None).returns)
    for table in tables[1:]:
        np.testing.assert_array_equal(table.returns, tables[0].returns)
        assert table.steering == pytest.approx(tables[0].steering)


def test_nor_on_workers():
    training = TestTimeTraining(ACTOR, PENDULUM_CRITIC, 0.01)
    np.testing.assert_array_equal(returns(training, workers=2).returns, returns(training).returns)


def test_the_module_is_unchanged_also_when_an_episode_raises():
    class Raises(gym.Wrapper):
        def step(self, action):
            result = self.env.step(action)
            if result[2] or result[3]:
                raise RuntimeError("broken")
            return result

    before = weights_hash(POLICY)
    evaluation = returns(TestTimeTraining(ACTOR, PENDULUM_CRITIC, 0.1), make=lambda: Raises(pendulum(4)))
    assert len(evaluation.failures) == 5
    assert evaluation.weights_hash == (before, before)
    assert all(parameter.grad is None for parameter in POLICY.policy.parameters())


@pytest.mark.parametrize("name", ["default", "whole"])
def test_it_climbs_the_critic(name):
    training = TestTimeTraining(ACTOR, PENDULUM_CRITIC, 3e-3, **CHOICES[name])
    assert returns(training).steering["predicted_gain"] > 0.01


def test_the_control_goes_as_far_and_learns_from_its_own_states():
    training = rule(actor=linear(), states=Replay(2))
    control = Steering(RandomDirection(like=training), None, CRITIC.action_space)
    control.begin([0])
    noise = np.array([[-1.0, 0.0]], np.float32)  # first the direction, then what the training draws
    after, metrics = control(np.ones((1, 1), np.float32), np.full((1, 1), 0.5, np.float32), noise)
    assert float(after[0, 0]) == pytest.approx(0.42)
    again, _ = control(np.ones((1, 1), np.float32), np.full((1, 1), 0.5, np.float32), noise)
    assert float(again[0, 0]) == pytest.approx(0.5 - (0.08 + 0.02 * 0.84 / 0.1764), rel=1e-4)
    assert metrics["displacement"] == pytest.approx(0.08)


def test_a_guard_holds_it_back():
    # The whole way leads past the top at 0.55: of the points 0, 1/2 and 1 of it the middle one is best.
    training = rule(0.002, critic=FunctionCritic(lambda o, a: -(a - 0.55).square().sum(-1)[None]))
    (after,), _ = play(training, [1.0])
    assert after == pytest.approx(0.66)
    guarded = Guarded(training, LineSearch(3), critic=training.critic)
    (held,), _ = play(guarded, [1.0])
    assert held == pytest.approx(0.58)


# Bad input


def test_a_learning_rate_that_explodes_leaves_the_frozen_action_and_is_counted():
    executed, metrics = play(rule(1e38), [1.0, 1.0])
    assert executed == [0.5, 0.5]
    assert metrics["non_finite"] == 1.0
    assert metrics["displacement"] == 0.0


def test_a_row_that_exploded_does_not_touch_the_others():
    # A critic that is no number where the state is negative; not at the very first step, which is refused.
    critic = FunctionCritic(lambda o, a: (-(a - o).square() / (o > -1)).sum(-1)[None])
    steering = Steering(rule(critic=critic), None, CRITIC.action_space)
    actions = np.full((2, 1), 0.5, np.float32)
    steering(np.ones((2, 1), np.float32), actions, None)
    after, metrics = steering(np.array([[1.0], [-2.0]], np.float32), actions, None)
    assert metrics["non_finite"].tolist() == [0.0, 1.0]
    assert after[1, 0] == 0.5
    assert after[0, 0] > 0.6
    again, _ = steering(np.ones((2, 1), np.float32), actions, None)
    assert again[1, 0] == pytest.approx(0.58)  # it began again


def test_a_critic_without_finite_values_is_refused_at_once():
    critic = FunctionCritic(lambda o, a: (a * float("nan")).sum(-1)[None])
    with pytest.raises(CriticError, match="must return finite values"):
        play(rule(critic=critic), [1.0])


def test_a_saturated_policy_has_no_gradient_and_says_so():
    (after,), metrics = play(rule(actor=linear(5.0, 0.0, nn.Hardtanh())), [1.0])
    assert after == 0.5
    assert metrics["zero_gradient"] == 1.0
    assert metrics["displacement"] == 0.0


def test_fast_weights_that_would_not_fit_are_refused_with_the_number(monkeypatch):
    monkeypatch.setattr(fast_weights, "free_memory", lambda device: 10_000_000)
    training = TestTimeTraining(ACTOR, PENDULUM_CRITIC, states=Latest())
    returns(training)
    # 17 weights: 4 * 17 + 1 numbers of 4 bytes each, for 100000 environments.
    with pytest.raises(InputError, match=r"100000 environments need 27\.6 MB .* 276 bytes each.* 10 MB free"):
        Steering(training, None, Acts.action_space).check_rows(100_000)


def test_free_memory_is_known_here():
    free = fast_weights.free_memory(th.device("cpu"))
    assert free is None or free > 1_000_000


@pytest.mark.parametrize(
    ("choices", "error", "match"),
    [
        ({"learning_rate": -1.0}, InputError, "`learning_rate` must be a finite number >= 0"),
        ({"gradient_steps": 0}, InputError, "`gradient_steps`"),
        ({"actor": nn.Linear(1, 1)}, InputError, "`actor_of"),
        ({"critic": FunctionCritic(bound=2.0)}, SpaceError, "`actor` must have the critic's actions"),
        ({"critic": lambda o, a: a}, InputError, "`critic` must be a Critic"),
    ],
)
def test_refusals(choices, error, match):
    with pytest.raises(error, match=match):
        rule(**choices)


def test_choices_refuse_what_means_nothing():
    for make in (
        lambda: Replay(1),
        lambda: Replay(4, capacity=0),
        lambda: Mixture(np.zeros((0, 3))),
        lambda: KLAnchor(0.0),
        lambda: KLAnchor(1.0, std_floor=0.0),
        lambda: Adam(beta1=1.0),
    ):
        with pytest.raises(InputError):
            make()


def test_a_critic_without_gradient_is_refused():
    with pytest.raises(CriticError, match="must be differentiable in the actions for test-time training"):
        play(rule(critic=FunctionCritic(lambda o, a: -(a.detach() - o).square().sum(-1)[None])), [1.0])


def test_an_environment_of_other_observations_is_refused():
    training = rule(critic=FunctionCritic(dim=2, action_space=CRITIC.action_space))
    with pytest.raises(SpaceError, match="`actor` must be made for the environment's observations"):
        Steering(training, spaces.Box(-1, 1, (2,)), CRITIC.action_space)


# Episodes that follow from one another


def test_never_forgetting_gives_a_curve_and_no_interval():
    training = TestTimeTraining(ACTOR, PENDULUM_CRITIC, 0.01, reset=Never())
    evaluation = returns(training, n_envs=4)
    assert not evaluation.independent
    np.testing.assert_array_equal(evaluation.curve, evaluation.returns)
    assert np.isinf(evaluation.summary.ci95.low)
    assert "not independent" in evaluation.summary.ci95.caveat
    assert np.isnan(evaluation.summary.standard_error)
    np.testing.assert_array_equal(returns(training, n_envs=1).returns, evaluation.returns)  # one after the other
    resumed = returns(training, store=MemoryStore({"": evaluation.episodes[:3]}))
    np.testing.assert_array_equal(resumed.returns, evaluation.returns)  # the first three are played again
    forgetting = returns(TestTimeTraining(ACTOR, PENDULUM_CRITIC, 0.01))
    assert forgetting.curve is None
    assert forgetting.returns[0] == evaluation.returns[0]
    assert not np.array_equal(forgetting.returns, evaluation.returns)


def test_nor_does_a_study_that_compares_with_it():
    control = RandomDirection(like=TestTimeTraining(ACTOR, PENDULUM_CRITIC, 0.01, reset=Never()))
    rows = steer(POLICY, lambda: pendulum(4), [Variant("never", control)], EpisodePlan.seeded(3))
    assert rows[1].paired.ci95.to_json() == [None, None]
    assert rows[1].paired.required_n is None


def test_several_environments_cannot_follow_from_one_another():
    training = TestTimeTraining(ACTOR, PENDULUM_CRITIC, reset=Never())
    vector = gym.vector.SyncVectorEnv([lambda: pendulum(4)] * 2)
    with pytest.raises(InputError, match="`env` must be a single environment for a policy that never forgets"):
        evaluate(POLICY, vector, EpisodePlan.seeded(2), rule=training)


# The study


def test_the_study_has_a_row_for_each_learning_rate_and_its_control():
    variants = steering_variants(PENDULUM_CRITIC, (), learning_rates=(3e-4, 1e-3), actor=ACTOR, controls=("random",))
    assert [(v.name, v.learning_rate, v.control) for v in variants] == [
        ("plain", None, None),
        ("ttt 0.0003", 3e-4, "random as ttt 0.0003"),
        ("random as ttt 0.0003", None, None),
        ("ttt 0.001", 1e-3, "random as ttt 0.001"),
        ("random as ttt 0.001", None, None),
    ]
    assert variants[2].rule.like is variants[1].rule
    with pytest.raises(InputError, match="`actor` must be given"):
        steering_variants(PENDULUM_CRITIC, (), learning_rates=(3e-4,))


def test_the_table_says_where_there_was_nothing_to_learn_from():
    saturated = nn.Sequential(nn.Linear(3, 1), nn.Hardtanh(-1e-9, 1e-9))
    actor = actor_of(saturated, action_space=Acts.action_space, observation_space=Acts.observation_space)
    training = TestTimeTraining(actor, PENDULUM_CRITIC, 0.01)
    control = Variant("random", RandomDirection(like=training))
    rows = steer(
        POLICY, lambda: pendulum(4), [Variant("ttt", training, control="random"), control], EpisodePlan.seeded(3)
    )
    np.testing.assert_array_equal(rows[1].evaluation.returns, rows[0].evaluation.returns)
    table = steering_table(rows, "agent")
    assert "ttt: no gradient in 100% of the steps: the actions are saturated, or the critic is flat" in table
