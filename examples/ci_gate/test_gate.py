"""What a candidate must show before it replaces the baseline. CartPole pays between 0 and 500 an episode."""

from offline_eval.testing import assert_deterministic, assert_not_worse, assert_return_at_least

CARTPOLE = {"env": "CartPole-v1", "bounds": (0.0, 500.0)}


def test_it_is_not_worse_than_the_baseline(agent):
    assert_not_worse(agent, than="baseline.zip", margin=25.0, **CARTPOLE)


def test_it_is_good_enough(agent):
    assert_return_at_least(agent, 250.0, **CARTPOLE)


def test_it_does_the_same_again(agent):
    assert_deterministic(agent, env="CartPole-v1")
