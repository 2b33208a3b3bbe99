"""Losses of the trainers: numbers worked out by hand, then identities."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch as th

from offline_eval.errors import InputError
from offline_eval.policies.actors import (
    Deterministic,
    FixedGaussian,
    Gaussian,
    Normal,
    Point,
    StateGaussian,
    TanhGaussian,
    TanhNormal,
)
from offline_eval.policies.adam import Adam
from offline_eval.policies.extraction import (
    AdvantageSpread,
    AWRExtraction,
    BCExtraction,
    BestOfNExtraction,
    DDPGBCExtraction,
    MeanAbsoluteQ,
    TD3BCExtraction,
    Unscaled,
    advantage_weight,
    ascend,
)
from offline_eval.policies.learner import Learner, policy_parts, total_loss, trained, value_parts
from offline_eval.policies.networks import LayerNormReLU, scalar
from offline_eval.policies.recipes import (
    Recipe,
    recipe_from_json,
    recipe_to_json,
)
from offline_eval.policies.step import Networks, Step
from offline_eval.policies.values import (
    ActorCritic,
    FittedQ,
    Implicit,
    OneStep,
    ValueRule,
    critic_loss,
    expectile_loss,
    td_loss,
)
from offline_eval.types import Batch

OBSERVATION_DIM, ACTION_DIM, BATCH, WIDTH = 3, 2, 16, 8
DETERMINISTIC, IMPLICIT = Deterministic(), Implicit()


def tensor(*values):
    return th.tensor(values)


def layers(generator, sizes, stack=()):
    parts = []
    for inputs, outputs in pairwise(sizes):
        parts += [
            th.randn(*stack, inputs, outputs, generator=generator),
            th.randn(*stack, outputs, generator=generator),
        ]
    return [0.5 * part for part in parts]


def parameters(actor=DETERMINISTIC, n_critics=2, seed=0):
    generator = th.Generator().manual_seed(seed)
    critic = [OBSERVATION_DIM + ACTION_DIM, WIDTH, WIDTH, 1]
    policy = [OBSERVATION_DIM, WIDTH, WIDTH, ACTION_DIM]
    th.manual_seed(seed)
    return {
        "actor": layers(generator, policy),
        "target_actor": layers(generator, policy),
        "critic": layers(generator, critic, (n_critics,)),
        "target_critic": layers(generator, critic, (n_critics,)),
        "value": layers(generator, [OBSERVATION_DIM, WIDTH, 1]),
        "spread": actor.initial_spread(WIDTH, ACTION_DIM),
    }


def batch(seed=1, rows=BATCH):
    generator = th.Generator().manual_seed(seed)

    def uniform(*shape):
        return 2.0 * th.rand(*shape, generator=generator) - 1.0

    return Batch(
        observations=uniform(rows, OBSERVATION_DIM),
        actions=0.9 * uniform(rows, ACTION_DIM),
        rewards=uniform(rows),
        next_observations=uniform(rows, OBSERVATION_DIM),
        next_actions=0.9 * uniform(rows, ACTION_DIM),
        masks=(th.rand(rows, generator=generator) > 0.2).float(),
    )


def step(actor=DETERMINISTIC, gamma=0.9, rule=IMPLICIT, **arguments):
    networks = Networks(parameters(actor, **arguments), th.relu, actor)
    noise = th.randn(BATCH, ACTION_DIM, generator=th.Generator().manual_seed(2))
    return Step(networks, batch(), noise, gamma, rule)


def gradients(loss, tensors):
    for t in tensors:
        t.requires_grad_()
    return th.autograd.grad(loss(), tensors, allow_unused=True)


# ------------------------------------------------------------------------------------------------ numbers by hand


def test_td_loss_sums_critics_and_averages_the_batch():
    # First critic: (1 + 4) / 2; second: (0 + 9) / 2.
    assert td_loss(th.tensor([[2.0, 3.0], [1.0, 8.0]]), tensor(1.0, 5.0)).item() == pytest.approx(2.5 + 4.5)


def test_expectile_loss_weights_what_lies_above_by_the_expectile():
    # .7 * 4 above, .3 * 1 below, over two.
    assert expectile_loss(tensor(2.0, -1.0), 0.7).item() == pytest.approx((0.7 * 4 + 0.3 * 1) / 2)


def test_the_advantage_weight_is_capped_and_never_infinite():
    weights = advantage_weight(tensor(0.0, 1.0, -1.0, 1e6), inverse_temperature=3.0, max_weight=100.0)
    assert weights.tolist() == pytest.approx([1.0, math.exp(3), math.exp(-3), 100.0])


def test_ascend_divides_the_mean_by_the_scale():
    assert ascend(tensor(1.0, 3.0), th.tensor(4.0)).item() == pytest.approx(-0.5)


def test_point_imitation_is_half_the_squared_distance():
    assert Point(th.tensor([[0.5, 0.0]])).imitation_loss(th.tensor([[0.1, 0.3]])).item() == pytest.approx(0.125)


def test_normal_log_density():
    # Two dimensions, standard deviation 1/2, one of them one standard deviation off.
    pi = Normal(th.tensor([[0.0, 0.2]]), th.tensor(math.log(0.5)))
    by_hand = -0.5 - 2 * math.log(0.5) - math.log(2 * math.pi)
    assert pi.log_prob(th.tensor([[0.5, 0.2]])).item() == pytest.approx(by_hand)


def test_normal_samples_stay_in_the_box():
    pi = Normal(th.tensor([[0.9, -0.1]]), th.tensor(math.log(0.5)))
    assert pi.sample(th.tensor([[1.0, 0.4]])).tolist() == [[1.0, pytest.approx(0.1)]]


def test_tanh_normal_log_density_at_zero_and_elsewhere():
    pi = TanhNormal(th.zeros(1, 1), th.zeros(1, 1))
    # At 0 tanh has slope 1; at tanh(1) it has 1 - tanh(1)^2.
    assert pi.log_prob(th.zeros(1, 1)).item() == pytest.approx(-0.5 * math.log(2 * math.pi))
    by_hand = -0.5 - 0.5 * math.log(2 * math.pi) - math.log(1 - math.tanh(1) ** 2)
    assert pi.log_prob(th.tensor([[math.tanh(1.0)]])).item() == pytest.approx(by_hand, rel=1e-5)


def test_tanh_normal_integrates_to_one_and_is_finite_at_the_ends():
    pi = TanhNormal(th.full((1, 1), 0.4), th.full((1, 1), -0.5))
    grid = th.linspace(-1, 1, 20001, dtype=th.float64)[1:-1, None]
    assert (pi.log_prob(grid).exp().sum() * 1e-4).item() == pytest.approx(1.0, abs=1e-3)
    assert th.isfinite(pi.log_prob(th.tensor([[1.0]]))).all()


def test_a_scalar_network_by_hand():
    # relu(2 x - 1) * 3 + 0.5 at x = 1 and x = 0.
    net = [th.tensor([[2.0]]), tensor(-1.0), th.tensor([[3.0]]), tensor(0.5)]
    assert scalar(net, th.tensor([[1.0], [0.0]]), th.relu).tolist() == [3.5, 0.5]


class Constant:
    """Networks whose answers are given."""

    def __init__(self, qs, target_qs, v=None, next_v=None, mode=None):
        self._qs, self._target_qs, self._v, self._next_v, self._mode = qs, target_qs, v, next_v, mode

    def qs(self, observations, actions):
        return self._qs

    def target_qs(self, observations, actions):
        return self._target_qs

    def v(self, observations):
        return self._next_v if bool((observations > 0).all()) else self._v

    def pi(self, observations):
        return Point(self._mode)

    target_pi = pi

    @property
    def frozen(self):
        return self

    def q1(self, observations, actions):
        return self._qs[0]


def constant_step(rule, **answers):
    rows = Batch(
        observations=th.zeros(2, 1),
        actions=th.tensor([[0.5], [0.0]]),
        rewards=tensor(1.0, 2.0),
        next_observations=th.ones(2, 1),
        next_actions=th.zeros(2, 1),
        masks=tensor(1.0, 0.0),
    )
    return Step(Constant(**answers), rows, th.zeros(2, 1), 0.5, rule)


def test_critic_loss_bootstraps_unless_the_step_terminated():
    # Targets: 1 + .5 * min(4, 6) = 3 and 2; errors of the critics: 0, 1 and 1, -2.
    at_hand = constant_step(
        OneStep(), qs=th.tensor([[3.0, 3.0], [4.0, 0.0]]), target_qs=th.tensor([[4.0, 9.0], [6.0, 8.0]])
    )
    loss, metrics = critic_loss(at_hand)
    assert loss.item() == pytest.approx((0 + 1) / 2 + (1 + 4) / 2)
    assert metrics["critic/q"].mean().item() == pytest.approx(2.5)


def test_fitted_q_bootstraps_each_critic_from_its_own_target():
    # Targets: (3, 2) for the first, 1 + .5 * 6 = 4 and 2 for the second.
    at_hand = constant_step(
        FittedQ(), qs=th.tensor([[3.0, 3.0], [4.0, 0.0]]), target_qs=th.tensor([[4.0, 9.0], [6.0, 8.0]])
    )
    loss, _ = critic_loss(at_hand)
    assert loss.item() == pytest.approx((0 + 1) / 2 + (0 + 4) / 2)


def test_iql_critic_and_value_loss():
    at_hand = constant_step(
        Implicit(0.7),
        qs=th.tensor([[3.0, 3.0]]),
        target_qs=th.tensor([[4.0, 9.0]]),
        v=tensor(2.0, 10.0),
        next_v=tensor(6.0, 7.0),
    )
    # TD targets 1 + .5 * 6 and 2; expectile: .7 * (4 - 2)^2 and .3 * (9 - 10)^2.
    loss, metrics = critic_loss(at_hand)
    assert metrics["critic/td_loss"].item() == pytest.approx((1 + 1) / 2)
    assert metrics["value/loss"].item() == pytest.approx((0.7 * 4 + 0.3) / 2)
    assert loss.item() == pytest.approx(1.0 + 1.55)


def test_a_penalty_is_added_to_the_critic_loss():
    @dataclass(frozen=True)
    class Push:
        coef: float

        def __call__(self, step):
            gap = step.networks.qs(step.batch.observations, step.batch.actions).mean()
            return self.coef * gap, {"critic/push": gap}

    at_hand = constant_step(OneStep(), qs=th.tensor([[3.0, 3.0]]), target_qs=th.tensor([[4.0, 9.0]]))
    plain, _ = critic_loss(at_hand)
    pushed, metrics = critic_loss(at_hand, (Push(2.0),))
    assert pushed.item() - plain.item() == pytest.approx(6.0)
    assert "critic/push" in metrics


def test_awr_by_hand():
    # Advantages 4 - 2 and 9 - 10; weights e^2 (capped at 3) and e^-1; half squared distances .125 and .5.
    at_hand = constant_step(
        Implicit(),
        qs=None,
        target_qs=th.tensor([[4.0, 9.0], [5.0, 9.0]]),
        v=tensor(2.0, 10.0),
        mode=th.tensor([[0.0], [1.0]]),
    )
    loss, metrics = AWRExtraction(inverse_temperature=1.0, max_weight=3.0).loss(at_hand)
    weights = np.array([3.0, math.exp(-1)])
    assert loss.item() == pytest.approx((3.0 * 0.125 + math.exp(-1) * 0.5) / 2)
    assert metrics["actor/effective_sample_share"].item() == pytest.approx(weights.mean() ** 2 / (weights**2).mean())


def test_ddpg_bc_by_hand():
    # Smallest critics 2 and -4: mean -1, mean |Q| 3. Half squared distances .125 and .5.
    at_hand = constant_step(
        Implicit(), qs=th.tensor([[2.0, 5.0], [3.0, -4.0]]), target_qs=th.tensor([[4.0, 9.0]]), v=tensor(2.0, 10.0),
        mode=th.tensor([[0.0], [1.0]]),
    )  # fmt: skip
    assert DDPGBCExtraction(0.3).loss(at_hand)[0].item() == pytest.approx(1 / 3 + 0.3 * 0.3125)
    assert DDPGBCExtraction(0.3, Unscaled()).loss(at_hand)[0].item() == pytest.approx(1 + 0.3 * 0.3125)
    # Advantages 2 and -1: their standard deviation is 3 / sqrt(2).
    by_spread = DDPGBCExtraction(0.3, AdvantageSpread()).loss(at_hand)[0].item()
    assert by_spread == pytest.approx(math.sqrt(2) / 3 + 0.3 * 0.3125)


def test_td3_bc_by_hand():
    # First critic alone: 2 and 5, mean 3.5 = mean |Q|. Mean squared error (.25 + 1) / 2.
    at_hand = constant_step(
        ActorCritic(), qs=th.tensor([[2.0, 5.0], [3.0, -4.0]]), target_qs=None, mode=th.tensor([[0.0], [1.0]])
    )  # fmt: skip
    assert TD3BCExtraction(2.5).loss(at_hand)[0].item() == pytest.approx(-2.5 + 0.625)


def test_actor_critic_smooths_clips_and_stays_in_the_box():
    seen = []

    class Watching(Constant):
        def target_qs(self, observations, actions):
            seen.append(actions)
            return th.zeros(2, 2)

    at_hand = constant_step(ActorCritic(), qs=th.zeros(2, 2), target_qs=None)
    at_hand.networks = Watching(None, None, mode=th.tensor([[0.2], [0.9]]))
    at_hand.noise = th.tensor([[1.0], [10.0]])
    ActorCritic(target_policy_noise=0.2, target_noise_clip=0.5).next_value(at_hand)
    assert seen[0].flatten().tolist() == pytest.approx([0.4, 1.0])


def test_best_of_n_takes_the_highest_score_of_each_row():
    pi = Normal(th.tensor([[0.0], [0.1]]), th.tensor(0.0))
    noise = th.tensor([[[0.1], [0.5], [-0.3]], [[0.2], [-0.4], [0.6]]])  # (batch, num_samples, action_dim)
    # Prefers small actions in the first state, large ones in the second.
    chosen = BestOfNExtraction(3).act(pi, th.tensor([[-1.0], [1.0]]), noise, lambda o, a: (o * a)[:, 0])
    assert chosen.flatten().tolist() == pytest.approx([-0.3, 0.7])


# ------------------------------------------------------------------------------------------------ identities


def test_expectile_half_is_half_the_mean_squared_error():
    difference = th.randn(100, generator=th.Generator().manual_seed(0))
    assert expectile_loss(difference, 0.5).item() == pytest.approx(0.5 * difference.square().mean().item())


def test_td3_bc_and_ddpg_bc_have_the_same_gradient():
    # facts: dividing TD3+BC by 2.5 gives DDPG+BC at bc_coef = 0.8 / |A|, where both read the same critic.
    td3, ddpg = step(n_critics=1), step(n_critics=1)
    mine = gradients(lambda: TD3BCExtraction(2.5).loss(td3)[0], td3.networks.parameters["actor"])
    theirs = gradients(
        lambda: DDPGBCExtraction(0.8 / ACTION_DIM, MeanAbsoluteQ()).loss(ddpg)[0],
        ddpg.networks.parameters["actor"],
    )
    for one, other in zip(mine, theirs, strict=True):
        th.testing.assert_close(one, 2.5 * other)
        assert one.abs().max() > 1e-3


def test_a_unit_gaussian_clones_like_a_deterministic_actor():
    fixed = step(FixedGaussian(1.0))
    deterministic = step()
    mine = gradients(lambda: BCExtraction().loss(fixed)[0], fixed.networks.parameters["actor"])
    theirs = gradients(lambda: BCExtraction().loss(deterministic)[0], deterministic.networks.parameters["actor"])
    for one, other in zip(mine, theirs, strict=True):
        th.testing.assert_close(one, other)


@pytest.mark.parametrize("actor", [Deterministic(), Gaussian(), StateGaussian(), TanhGaussian()])
def test_awr_at_zero_temperature_is_behaviour_cloning(actor):
    at_hand = step(actor)
    awr = AWRExtraction(inverse_temperature=0.0).loss(at_hand)[0]
    assert awr.item() == pytest.approx(BCExtraction().loss(at_hand)[0].item())


def test_ddpg_bc_without_bc_is_plain_ddpg():
    at_hand = step()
    loss = DDPGBCExtraction(0.0, Unscaled()).loss(at_hand)[0]
    q = at_hand.networks.qs(at_hand.batch.observations, at_hand.networks.pi(at_hand.batch.observations).mode)
    assert loss.item() == pytest.approx(-q.amin(0).mean().item())


def test_td3_target_smoothing_without_noise_is_ddpg():
    at_hand = step()
    plain = at_hand.networks.target_qs(
        at_hand.batch.next_observations, at_hand.networks.target_pi(at_hand.batch.next_observations).mode
    )
    th.testing.assert_close(ActorCritic(0.0, 0.5).next_value(at_hand), plain.amin(0))


def test_terminated_and_truncated_differ_by_gamma_v():
    at_hand = step(gamma=0.9)
    networks = at_hand.networks
    value = networks.v(at_hand.batch.next_observations)
    targets = []
    for mask in (0.0, 1.0):
        rows = at_hand.batch._replace(masks=th.full((BATCH,), mask))
        # The TD loss against qs = 0 is the mean of the squared target, for each of two critics.
        zero = {**networks.parameters, "critic": [th.zeros_like(p) for p in networks.parameters["critic"]]}
        _, metrics = critic_loss(Step(replace(networks, parameters=zero), rows, None, 0.9, Implicit()))
        targets.append(metrics["critic/td_loss"].item() / 2)
    rewards = at_hand.batch.rewards
    assert targets[0] == pytest.approx(rewards.square().mean().item(), rel=1e-5)
    assert targets[1] == pytest.approx((rewards + 0.9 * value).square().mean().item(), rel=1e-5)


def test_stacked_critics_equal_separate_ones():
    networks = step().networks
    rows = batch()
    stacked = networks.qs(rows.observations, rows.actions)
    for i in range(2):
        alone = [layer[i] for layer in networks.parameters["critic"]]
        separate = scalar(alone, th.cat([rows.observations, rows.actions], -1), th.relu)
        th.testing.assert_close(stacked[i], separate)
    th.testing.assert_close(networks.q1(rows.observations, rows.actions), stacked[0])


def test_layer_norm_relu_ignores_the_scale_of_its_input():
    x = th.randn(4, 8, generator=th.Generator().manual_seed(0))
    th.testing.assert_close(LayerNormReLU()(x), LayerNormReLU()(100 * x + 5), atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------ the whole update

VALUES = [OneStep(), Implicit(), ActorCritic(), FittedQ()]
EXTRACTIONS = [
    BCExtraction(),
    AWRExtraction(),
    AWRExtraction(scale=AdvantageSpread()),
    DDPGBCExtraction(),
    DDPGBCExtraction(scale=AdvantageSpread()),
    TD3BCExtraction(),
]
ACTORS = [Deterministic(), FixedGaussian(0.5), Gaussian(), StateGaussian(), TanhGaussian()]


def learner(recipe, seed=0):
    made = Learner(recipe, parameters(recipe.actor, seed=seed), th.relu, gamma=0.9, tau=0.1)
    made.learning_rates = {"value": 1e-3, "policy": 1e-3}
    return made


PAIRS = [
    (extraction, actor)
    for extraction in [*EXTRACTIONS, BestOfNExtraction(4)]
    for actor in ACTORS
    if not (extraction.ranks_candidates and actor == DETERMINISTIC)  # refused: its samples are all the same
]


@pytest.mark.parametrize("rule", VALUES, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize(("extraction", "actor"), PAIRS, ids=lambda x: type(x).__name__)
def test_every_value_goes_with_every_extraction_and_actor(rule, extraction, actor):
    at_hand = learner(Recipe(rule, extraction, actor))
    before = {name: [p.detach().clone() for p in group] for name, group in at_hand.parameters.items()}
    noise = th.randn(BATCH, ACTION_DIM)
    parts = [*value_parts(at_hand.recipe), *policy_parts(at_hand.recipe)]
    loss, _ = at_hand.update(batch(), noise, 1, parts)
    assert th.isfinite(loss)
    expected = {"actor", "critic", "target_actor", "target_critic"} | ({"value"} if rule.trains_v else set())
    # A spread is trained by a density; TD3+BC has none, and the others read none of a fixed one.
    if before["spread"] and not isinstance(extraction, TD3BCExtraction):
        expected.add("spread")
    changed = {
        name for name, group in before.items()
        if any(not th.equal(a, b) for a, b in zip(group, at_hand.parameters[name], strict=True))
    }  # fmt: skip
    assert changed == expected


def test_one_backward_pass_gives_each_part_its_own_gradient():
    # The policy's loss must not reach the critics, nor the critics' loss the policy.
    recipe = Recipe(ActorCritic(), DDPGBCExtraction())
    together = learner(recipe)
    parts = [*value_parts(recipe), *policy_parts(recipe)]
    at_hand = together.step(batch(), th.zeros(BATCH, ACTION_DIM))
    joint = th.autograd.grad(total_loss(parts, at_hand)[0], trained(parts, together.parameters), allow_unused=True)
    alone = []
    for part in parts:
        fresh = together.step(batch(), th.zeros(BATCH, ACTION_DIM))
        alone += th.autograd.grad(part.loss(fresh)[0], trained([part], together.parameters), allow_unused=True)
    for one, other in zip(joint, alone, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            th.testing.assert_close(one, other)


def test_the_delayed_policy_and_the_targets_move_every_second_step():
    recipe = Recipe(ActorCritic(), TD3BCExtraction(), policy_delay=2)
    at_hand = learner(recipe)
    parts = [*value_parts(recipe), *policy_parts(recipe)]
    before = [at_hand.parameters[name][0].detach().clone() for name in ("actor", "target_critic")]
    at_hand.update(batch(), th.zeros(BATCH, ACTION_DIM), 1, parts)
    assert all(th.equal(at_hand.parameters[n][0], b) for n, b in zip(("actor", "target_critic"), before, strict=True))
    at_hand.update(batch(), th.zeros(BATCH, ACTION_DIM), 2, parts)
    assert not any(
        th.equal(at_hand.parameters[n][0], b) for n, b in zip(("actor", "target_critic"), before, strict=True)
    )


def test_targets_take_over_tau_of_the_new_parameters():
    recipe = Recipe(Implicit(), BCExtraction())
    at_hand = learner(recipe)
    old = at_hand.parameters["target_critic"][0].clone()
    at_hand.update(batch(), None, 1, value_parts(recipe))
    expected = 0.9 * old + 0.1 * at_hand.parameters["critic"][0]
    th.testing.assert_close(at_hand.parameters["target_critic"][0], expected.detach())


def test_adam_is_torch_s_adam_whatever_the_layout_of_a_gradient():
    generator = th.Generator().manual_seed(0)
    ours = {"critic": layers(generator, [4, 3], (2,)), "value": []}
    theirs = [p.clone().requires_grad_() for p in ours["critic"]]
    words = {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    adam, reference = Adam(ours, ("critic", "value"), **words), th.optim.Adam(theirs, lr=0.01, **words)
    for _ in range(5):
        weight = th.randn(2, 3, 4, generator=generator).transpose(1, 2)
        bias = th.randn(2, 3, generator=generator)
        adam.update(("critic", "value"), [weight, bias], learning_rate=0.01)
        for parameter, gradient in zip(theirs, (weight, bias), strict=True):
            parameter.grad = gradient.contiguous()
        reference.step()
    for one, other in zip(ours["critic"], theirs, strict=True):
        th.testing.assert_close(one, other)


def test_the_loss_stacks_along_a_run_axis():
    # A later version trains many runs at once: the gradient must be a pure function that torch.func can map.
    recipe = Recipe(Implicit(), AWRExtraction(), actor=Gaussian())
    parts = [*value_parts(recipe), *policy_parts(recipe)]
    runs = [parameters(recipe.actor, seed=seed) for seed in (0, 1)]
    stacked = {name: [th.stack(group) for group in zip(*(run[name] for run in runs), strict=True)] for name in runs[0]}

    rows = batch()

    def loss(run):
        return total_loss(parts, Step(Networks(run, th.relu, recipe.actor), rows, None, 0.9, recipe.value))[0]

    mapped = th.func.vmap(th.func.grad(loss))(stacked)
    for i, run in enumerate(runs):
        alone = th.func.grad(loss)(run)
        for name in ("critic", "value", "actor", "spread"):
            for one, other in zip(mapped[name], alone[name], strict=True):
                th.testing.assert_close(one[i], other, rtol=1e-4, atol=1e-5)


def test_a_user_rule_is_ten_lines_and_works_with_an_extraction():
    @dataclass(frozen=True)
    class MyRule(ValueRule):
        needs_next_actions: ClassVar[bool] = True

        def next_value(self, step):
            return step.networks.target_qs(step.batch.next_observations, step.batch.next_actions).mean(0)

    at_hand = learner(Recipe(MyRule(), AWRExtraction()))
    assert th.isfinite(at_hand.update(batch(), None, 1, value_parts(at_hand.recipe))[0])
    with pytest.raises(InputError, match="give `recipe` when loading"):
        recipe_from_json(recipe_to_json(at_hand.recipe))
