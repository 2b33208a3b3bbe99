"""Functions and modules of others become critics: asked in their own units, in any layout, and checked once."""

import gymnasium as gym
import pytest
import torch as th
from torch import nn

from offline_eval.errors import CriticError
from offline_eval.policies import critic_of

BOX = gym.spaces.Box(-2.0, 2.0, (1,))
SCALED_BOX = gym.spaces.Box(-1.0, 1.0, (1,))
OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (3,))


def batch(size=5):
    generator = th.Generator().manual_seed(0)
    return th.randn(size, 3, generator=generator), th.rand(size, 1, generator=generator) * 2 - 1


def linear(observations, actions):
    return observations[:, 0] + 10 * actions[:, 0]


@pytest.mark.parametrize(("action_units", "expected"), [("scaled", 8.0), ("environment", 13.0)])
def test_a_function_is_asked_in_its_own_units(action_units, expected):
    # Box [-2, 2]: half way up the scaled space is 1 in the environment's units. 3 + 10 * 0.5, or 3 + 10 * 1.
    critic = critic_of(linear, action_space=BOX, gamma=0.9, action_units=action_units)
    values = critic.q(th.tensor([[3.0, 0.0, 0.0]]), th.tensor([[0.5]]))
    assert values.tolist() == [[expected]]
    assert critic.scale(th.tensor([[1.0]])).tolist() == [[0.5]]
    assert critic.unscale(th.tensor([[0.5]])).tolist() == [[1.0]]


class Net(nn.Module):
    """Two heads side by side, (batch, 2), with dropout in training mode."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 2), nn.Dropout(0.5)

    def forward(self, observations, actions):
        return self.drop(self.layer(th.cat([observations, actions], dim=1)))


def test_a_module_is_seen_in_evaluation_mode_and_left_in_training_mode():
    net = Net()
    observations, actions = batch()
    critic = critic_of(net, action_space=SCALED_BOX, gamma=0.9, observation_space=OBSERVATIONS)
    with th.no_grad():
        expected = net.layer(th.cat([observations, actions], dim=1)).T
    assert th.equal(critic.q(observations, actions), expected)
    assert net.training
    assert not critic.q(observations, actions).requires_grad


LAYOUTS = {
    "(batch,)": lambda q: q[0],
    "(batch, 1)": lambda q: q[0][:, None],
    "(n_critics, batch)": lambda q: q,
    "(batch, n_critics)": lambda q: q.T,
    "tuple of (batch, 1)": lambda q: tuple(row[:, None] for row in q),
    "list of (batch,)": lambda q: list(q),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_layout_is_found_even_where_there_are_as_many_critics_as_rows(layout, size):
    def two_heads(observations, actions):
        first = observations[:, 0] + actions[:, 0]
        return LAYOUTS[layout](th.stack([first, 10 * first]))

    critic = critic_of(two_heads, action_space=SCALED_BOX, gamma=0.9)
    observations, actions = batch(size)
    first = observations[:, 0] + actions[:, 0]
    expected = first[None] if layout in ("(batch,)", "(batch, 1)") else th.stack([first, 10 * first])
    assert th.equal(critic.q(observations, actions), expected)


def test_a_discrete_function_gets_indices():
    table = th.tensor([[1.0, 2.0, 3.0]])

    def entries(observations, actions):
        return table[0][actions]

    critic = critic_of(entries, action_space=gym.spaces.Discrete(3), gamma=0.9, observation_space=OBSERVATIONS)
    assert critic.q(th.zeros(2, 3), th.tensor([[2.0], [0.0]])).tolist() == [[3.0, 1.0]]


def test_actions_of_two_axes_keep_them():
    def per_finger(observations, actions):
        return actions[:, 1, 2]

    space = gym.spaces.Box(-2.0, 2.0, (2, 3))
    critic = critic_of(per_finger, action_space=space, gamma=0.9, action_units="environment")
    assert critic.q(th.zeros(1, 3), th.tensor([[0, 0, 0, 0, 0, 0.5]])).tolist() == [[1.0]]


def test_values_are_looked_at_once():
    # Looking for NaN waits for the device: it happens at the first call and not in every one.
    calls = []

    def count(observations, actions):
        calls.append(len(observations))
        return observations[:, 0]

    critic = critic_of(count, action_space=SCALED_BOX, gamma=0.9)
    observations, actions = batch()
    critic.q(observations, actions)
    critic.q(observations, actions)
    assert calls == [5, 6, 5, 5]


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"gamma": 0.9}, "`action_space` must be given for a function. Received None: pass `env.action_space`"),
        (
            {"action_space": BOX, "gamma": 0.9},
            "`action_units` must say in which space the function thinks, as Box(-2.0,",
        ),
        (
            {"action_space": BOX, "gamma": 0.9, "action_units": "raw"},
            '`action_units` must be "scaled" or "environment"',
        ),
        (
            {"action_space": SCALED_BOX},
            "`gamma` must be the discount that the value was trained with, in [0, 1]. Received",
        ),
        ({"action_space": SCALED_BOX, "gamma": 1.5}, "in [0, 1]. Received 1.5"),
    ],
)
def test_what_a_function_needs_is_asked_for(arguments, told):
    with pytest.raises(CriticError) as raised:
        critic_of(linear, **arguments)
    assert told in str(raised.value)


WRONG = {
    "one number": (lambda o, a: o.mean(), "must return (3,), (n_critics, 3) or (3, n_critics)", "shape ()"),
    "another batch": (lambda o, a: o.new_zeros(2, 9), "must return (3,)", "shape (2, 9)"),
    "three axes": (lambda o, a: o.new_zeros(2, len(o), 1), "must return (3,)", "shape (2, 3, 1)"),
    "NaN": (lambda o, a: o[:, 0] * float("nan"), "must return finite values", "3 of 3 that are not"),
    "an array": (lambda o, a: o[:, 0].numpy(), "must return a tensor of floats", "ndarray"),
    "whole numbers": (lambda o, a: o[:, 0].long(), "must return a tensor of floats", "int64"),
    "an error": (lambda o, a: a @ o, "must accept (observations, actions)", "observations (3, 3) and actions (3, 1)"),
}


@pytest.mark.parametrize("early", [True, False], ids=["constructor", "first call"])
@pytest.mark.parametrize("case", WRONG)
def test_a_function_that_returns_something_else_is_refused(case, early):
    function, rule, received = WRONG[case]
    space = OBSERVATIONS if early else None
    with pytest.raises(CriticError) as raised:
        critic_of(function, action_space=SCALED_BOX, gamma=0.9, observation_space=space).q(*batch(3))
    assert f"`model` {rule}" in str(raised.value)
    assert received in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_function_that_changes_its_shape_is_refused():
    critic = critic_of(lambda o, a: o[:3, 0], action_space=SCALED_BOX, gamma=0.9)
    with pytest.raises(CriticError, match=r"must return \(4,\)"):
        critic.q(*batch(4))
