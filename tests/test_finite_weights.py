"""An agent that diverged is named by its first broken tensor, before anything is played."""

import copy
import io

import pytest
import torch as th
from agent_files import rewritten, saved

from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import InputError
from offline_eval.policies import critic_of, load_sb3

AGENTS = (
    ("tiny_sac", "Pendulum-v1", "critic.qf1.0.bias"),
    ("tiny_td3", "Pendulum-v1", "actor.mu.0.weight"),
    ("tiny_ddpg", "Pendulum-v1", "critic_target.qf0.0.weight"),
    ("tiny_tqc", "Pendulum-v1", "actor.log_std.bias"),
    ("tiny_crossq", "Pendulum-v1", "actor.mu.weight"),
    ("tiny_dqn", "CartPole-v1", "q_net.q_net.0.weight"),
    ("tiny_qrdqn", "CartPole-v1", "quantile_net.quantile_net.2.bias"),
    ("tiny_ppo_pendulum", "Pendulum-v1", "log_std"),
)


def broken(model, name, value=th.nan):
    """The model's weights with one number of a tensor replaced."""
    weights = {key: tensor.clone() for key, tensor in model.policy.state_dict().items()}
    weights[name].view(-1)[0] = value
    return weights


class Untouched:
    """An environment that fails the test when anybody makes it play."""

    def __init__(self, spaces):
        self.observation_space, self.action_space = spaces

    def reset(self, **words):
        raise AssertionError("something was played")

    step = reset


@pytest.mark.parametrize(("agent", "env", "name"), AGENTS)
def test_every_algorithm_names_its_tensor_from_a_file_and_alive(agent, env, name, request, tmp_path):
    model = request.getfixturevalue(agent)
    weights, content = broken(model, name), io.BytesIO()
    th.save(weights, content)
    path = rewritten(saved(model, tmp_path), tmp_path / "nan.zip", members={"policy.pth": content.getvalue()})
    told = rf"must have finite weights\. Received .*1 of the \d+ numbers of `{name}` (are|is) NaN"
    with pytest.raises(InputError, match=told) as raised:
        load_sb3(path, env, device="cpu")
    assert "in nan.zip" in str(raised.value)
    assert "\n" not in str(raised.value)

    live = load_sb3(saved(model, tmp_path), env, device="cpu")
    live.policy.load_state_dict(weights)
    with pytest.raises(InputError, match=told):
        evaluate(live, Untouched((live.observation_space, live.action_space)), EpisodePlan.seeded(1))
    if name.startswith(("critic.", "q_net.", "quantile_net.")):
        with pytest.raises(InputError, match=told):
            critic_of(live)


def test_infinite_weights_are_none_either(tiny_sac, tmp_path):
    live = load_sb3(saved(tiny_sac, tmp_path), "Pendulum-v1", device="cpu")
    live.policy.load_state_dict(broken(tiny_sac, "actor.mu.bias", th.inf))
    with pytest.raises(InputError, match=r"1 of the 1 numbers of `actor\.mu\.bias` is infinite"):
        evaluate(live, "Pendulum-v1", EpisodePlan.seeded(1))


def test_a_module_that_is_to_be_a_critic(tiny_sac):
    module = copy.deepcopy(tiny_sac.critic)
    with th.no_grad():
        module.qf0[0].weight[0] = th.nan
    with pytest.raises(InputError, match=r"numbers of `qf0\.0\.weight` are NaN"):
        critic_of(module, action_space=tiny_sac.action_space, gamma=0.9, action_units="scaled")


def test_a_mask_may_be_infinite(tiny_sac, tmp_path):
    live = load_sb3(saved(tiny_sac, tmp_path), "Pendulum-v1", device="cpu")
    live.policy.register_buffer("mask", th.tensor([0.0, -th.inf]))
    assert not evaluate(live, "Pendulum-v1", EpisodePlan.seeded(1), step_limit=2).failures


def test_an_entropy_coefficient_is_looked_at(tiny_sac, tmp_path):
    content = io.BytesIO()
    th.save({"log_ent_coef": th.tensor([th.nan])}, content)
    path = rewritten(
        saved(tiny_sac, tmp_path), tmp_path / "nan.zip", members={"pytorch_variables.pth": content.getvalue()}
    )
    with pytest.raises(InputError, match="`log_ent_coef` is NaN"):
        load_sb3(path, "Pendulum-v1", device="cpu")


def test_policies_without_weights_are_left_alone():
    class Still:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return th.zeros(len(observation), 1).numpy(), state

    assert not evaluate(Still(), "Pendulum-v1", EpisodePlan.seeded(1), step_limit=2).failures
