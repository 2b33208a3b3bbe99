"""VecNormalize statistics are read without being unpickled, held still, and applied once."""

import io
import pickle
import tracemalloc
from collections import OrderedDict
from typing import ClassVar

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from agent_files import Touch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from offline_eval.errors import AgentFileError, CriticError, InputError, SpaceError
from offline_eval.policies import (
    Normalized,
    Statistics,
    critic_of,
    find_vecnormalize,
    load_sb3,
    read_vecnormalize,
    weights_hash,
)
from offline_eval.policies.normalization import Moments
from offline_eval.policies.vecnormalize_file import LARGEST_FILE

BY_HAND = Statistics(Moments(np.array([1.0, 0, 0]), np.array([4.0, 1, 1])), return_variance=9.0, epsilon=0.0)


class Dials(gym.Env):
    """Dict observations, of which VecNormalize can leave one alone."""

    observation_space = gym.spaces.Dict(speed=gym.spaces.Box(-9, 9, (2,)), angle=gym.spaces.Box(-9, 9, (1,)))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action):
        return self._observation(), 1.0, False, False, {}

    def _observation(self):
        draw = self.np_random.uniform
        return {"speed": draw(0, 5, 2).astype(np.float32), "angle": draw(0, 5, 1).astype(np.float32)}


def gathered(env=lambda: gym.make("Pendulum-v1"), steps=50, **arguments):
    """A VecNormalize that has seen a few steps."""
    stack = VecNormalize(DummyVecEnv([env]), **arguments)
    stack.seed(0)
    stack.reset()
    for _ in range(steps):
        stack.step(np.zeros((1, 1), dtype=np.float32))
    return stack


def linear_sac():
    """Q = 2 * observation[0] + 3 * scaled action, on Pendulum."""
    model = SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": []}, device="cpu", seed=0)
    with th.no_grad():
        for head in model.critic.q_networks:
            head[0].weight.copy_(th.tensor([[2.0, 0.0, 0.0, 3.0]]))
            head[0].bias.zero_()
    return model


# Numbers worked out by hand.


def test_observations_by_hand():
    assert BY_HAND.normalize(np.array([5.0, 3.0, 100.0])).tolist() == [2.0, 3.0, 10.0]  # (5 - 1) / 2; clipped at 10
    assert BY_HAND.return_scale == 3.0
    assert Statistics(None, None).return_scale == 1.0


def test_a_critic_sees_normalised_observations_and_answers_in_raw_returns():
    critic = critic_of(Normalized(linear_sac(), BY_HAND))
    # 2 * (5 - 1) / 2 + 3 * 0.5 = 5.5 in units of a deviation of 3.
    assert critic.q(th.tensor([[5.0, 0.0, 0.0]]), th.tensor([[0.5]])).tolist() == [[16.5], [16.5]]


def test_what_a_critic_sees_is_clipped_as_in_training():
    critic = critic_of(Normalized(linear_sac(), BY_HAND))
    assert critic.q(th.tensor([[41.0, 0.0, 0.0]]), th.zeros(1, 1))[0].item() == 60.0  # (41 - 1) / 2 = 20 becomes 10


def test_rewards_that_were_left_alone_leave_the_values_alone():
    statistics = Statistics(BY_HAND.observations, return_variance=None, epsilon=0.0)
    critic = critic_of(Normalized(linear_sac(), statistics))
    assert critic.q(th.tensor([[5.0, 0.0, 0.0]]), th.tensor([[0.5]])).tolist() == [[5.5], [5.5]]


def test_the_gradient_is_in_raw_returns_too():
    critic, actions = critic_of(Normalized(linear_sac(), BY_HAND)), th.zeros(1, 1, requires_grad=True)
    critic.q(th.zeros(1, 3), actions)[0].sum().backward()
    assert actions.grad.item() == 9.0


# What VecNormalize itself computes.


@pytest.mark.parametrize("arguments", [{}, {"norm_reward": False}, {"norm_obs": False}, {"clip_obs": 1.0}])
def test_it_is_vecnormalize_to_the_last_bit(arguments, tmp_path):
    stack = gathered(**arguments)
    stack.save(tmp_path / "stats.pkl")
    observations = np.random.default_rng(0).normal(0, 3, (20, 3)).astype(np.float32)
    for statistics in (read_vecnormalize(tmp_path / "stats.pkl"), Statistics.of(stack)):
        assert np.array_equal(statistics.normalize(observations), stack.normalize_obs(observations))
        assert statistics.return_scale == pytest.approx(
            1 / stack.normalize_reward(np.ones(1)).item() if stack.norm_reward else 1
        )


@pytest.mark.parametrize("keys", [None, ["speed"]])
def test_dict_observations(keys, tmp_path):
    stack = gathered(Dials, norm_obs_keys=keys)
    stack.save(tmp_path / "stats.pkl")
    statistics = read_vecnormalize(tmp_path / "stats.pkl")
    observations = {"speed": np.full((4, 2), 3.0, np.float32), "angle": np.full((4, 1), 3.0, np.float32)}
    expected = stack.normalize_obs(observations)
    ours = statistics.normalize(observations)
    assert {key: value.tolist() for key, value in ours.items()} == {key: v.tolist() for key, v in expected.items()}

    model = SAC("MultiInputPolicy", Dials(), buffer_size=10, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)
    tensors, actions = {key: th.as_tensor(value) for key, value in observations.items()}, th.zeros(4, 1)
    seen = {key: th.as_tensor(value) for key, value in expected.items()}
    values = critic_of(Normalized(model, statistics)).q(tensors, actions)
    assert th.allclose(values, critic_of(model).q(seen, actions) * statistics.return_scale, rtol=1e-5)


def test_a_policy_behind_frozen_statistics_plays_as_behind_vecnormalize(tmp_path):
    stack = gathered(steps=200)
    model = PPO("MlpPolicy", stack, n_steps=64, device="cpu", seed=0).learn(64)
    model.save(tmp_path / "ppo")
    stack.save(tmp_path / "stats.pkl")
    stack.training = False
    policy = load_sb3(tmp_path / "ppo", "Pendulum-v1", device="cpu", normalize=tmp_path / "stats.pkl")

    stack.seed(3)
    seen, raw = stack.reset(), gym.make("Pendulum-v1").reset(seed=3)[0]
    expected, _ = model.predict(seen, deterministic=True)
    assert np.array_equal(policy.predict(raw[None], deterministic=True)[0], expected)
    assert np.array_equal(policy.predict(raw, deterministic=True)[0], expected[0])
    assert weights_hash(policy) == weights_hash(model)


def test_statistics_stay_still_while_the_stack_learns_on():
    stack = gathered()
    statistics = Statistics.of(stack)
    before = statistics.normalize(np.ones((1, 3), dtype=np.float32)), statistics.return_scale
    for _ in range(20):
        stack.step(np.ones((1, 1), dtype=np.float32))
    after = statistics.normalize(np.ones((1, 3), dtype=np.float32)), statistics.return_scale
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]


def test_it_can_be_sent_to_another_process(tiny_sac):
    policy = Normalized(tiny_sac, BY_HAND)
    critic = critic_of(policy)
    observations, actions = th.randn(4, 3), th.zeros(4, 1)
    critic.q(observations, actions)
    sent_policy, sent_critic = cloudpickle.loads(cloudpickle.dumps((policy, critic)))
    raw = observations.numpy()
    assert np.array_equal(sent_policy.predict(raw, deterministic=True)[0], policy.predict(raw, deterministic=True)[0])
    assert th.equal(sent_critic.q(observations, actions), critic.q(observations, actions))


# Applied once.


def test_a_stack_that_normalises_is_found_wherever_it_is():
    stack = gathered()
    assert find_vecnormalize(stack) is stack
    assert find_vecnormalize(VecNormalize(stack)) is not None
    assert find_vecnormalize(DummyVecEnv([lambda: Monitor(gym.make("Pendulum-v1"))])) is None
    assert find_vecnormalize(gym.make("Pendulum-v1")) is None
    assert find_vecnormalize("Pendulum-v1") is None


def test_statistics_beside_a_stack_that_normalises_are_refused(tiny_sac, tmp_path):
    stack = gathered()
    tiny_sac.save(tmp_path / "sac")
    stack.save(tmp_path / "stats.pkl")
    with pytest.raises(InputError, match="`normalize` must be left out where the environment has a VecNormalize"):
        load_sb3(tmp_path / "sac", stack, device="cpu", normalize=tmp_path / "stats.pkl")


def test_a_policy_is_not_normalised_twice(tiny_sac):
    with pytest.raises(InputError, match="`model` must not be normalised already"):
        Normalized(Normalized(tiny_sac, BY_HAND), BY_HAND)


def test_statistics_of_another_environment_are_refused(tiny_dqn, tiny_sac):
    with pytest.raises(
        SpaceError, match=r"of the agent's observations, of shape \(4,\). Received statistics of shape \(3,\)"
    ):
        Normalized(tiny_dqn, BY_HAND)
    with pytest.raises(SpaceError, match=r"Received statistics of shape .*speed \(2,\)"):
        Normalized(tiny_sac, Statistics.of(gathered(Dials)))


def test_statistics_of_images_are_refused():
    space = gym.spaces.Box(0, 255, (3, 8, 8), np.uint8)
    statistics = Statistics(Moments(np.zeros((3, 8, 8)), np.ones((3, 8, 8))), None)
    with pytest.raises(SpaceError, match="must not be statistics of images"):
        statistics.check(space)


def test_a_normalised_policy_without_q_has_no_critic(tiny_ppo_pendulum):
    with pytest.raises(CriticError, match=r"PPO, which has a V\(s\) only"):
        critic_of(Normalized(tiny_ppo_pendulum, BY_HAND))


# Nothing is run.


@pytest.mark.parametrize("place", ["whole", "obs_rms", "clip_obs", "action_space", "mean"])
def test_a_payload_is_not_run(place, tmp_path):
    trace, stack = tmp_path / "ran", gathered()
    if place == "whole":
        content = Touch(trace)
    else:
        content = stack
        setattr(stack.obs_rms if place == "mean" else stack, place, Touch(trace))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(
        AgentFileError, match=r"`normalize` must hold nothing but .* it names `posix.system`, and nothing"
    ):
        read_vecnormalize(tmp_path / "evil.pkl")
    assert not trace.exists()


def test_the_same_payload_runs_in_a_plain_pickle(tmp_path):
    pickle.loads(pickle.dumps(Touch(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_payload_that_hides_behind_an_allowed_name_is_not_run(tmp_path):
    # numpy.testing has helpers that run code: an allow-list of packages alone would let them through.
    trace = tmp_path / "ran"
    code = f"__import__('os').mkdir({str(trace)!r})".encode()
    evil = b"cnumpy.testing._private.utils\nrunstring\n(X" + len(code).to_bytes(4, "little") + code + b"}tR."
    (tmp_path / "evil.pkl").write_bytes(evil)
    with pytest.raises(AgentFileError, match=r"must be a file that `VecNormalize\.save` wrote"):
        read_vecnormalize(tmp_path / "evil.pkl")
    pickle.loads(evil)
    assert trace.exists()  # the control: it does run elsewhere


class Renamed(pickle._Pickler):
    """Writes the names that older libraries had."""

    def save_global(self, obj, name=None):
        module, name = obj.__module__, obj.__qualname__
        module = module.replace("numpy._core", "numpy.core").replace("gymnasium", "gym")
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.memoize(obj)

    dispatch: ClassVar = {
        **pickle._Pickler.dispatch,
        type: save_global,
        type(len): save_global,
        type(gathered): save_global,
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_older_names_are_read(protocol, tmp_path):
    stack, content = gathered(), io.BytesIO()
    stack.obs_rms.mean = np.asfortranarray(stack.obs_rms.mean)
    (Renamed if protocol == 3 else pickle.Pickler)(content, protocol).dump(stack)
    (tmp_path / "stats.pkl").write_bytes(content.getvalue())
    if protocol == 3:
        assert b"numpy.core" in content.getvalue()
        assert b"gymnasium" not in content.getvalue()
    if protocol == 2:  # it writes bytes as calls of a codec; VecNormalize never chose it
        with pytest.raises(AgentFileError, match=r"_codecs\.encode"):
            read_vecnormalize(tmp_path / "stats.pkl")
    else:
        statistics = read_vecnormalize(tmp_path / "stats.pkl")
        assert np.array_equal(statistics.observations.mean, stack.obs_rms.mean)
        assert statistics.return_variance == stack.ret_rms.var


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1, 2]), pickle.dumps(OrderedDict(norm_obs=True))])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "stats.pkl").write_bytes(content)
    with pytest.raises(AgentFileError, match=r"`normalize` must be a file that `VecNormalize\.save` wrote") as raised:
        read_vecnormalize(tmp_path / "stats.pkl")
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AgentFileError, match=r"`normalize` must be an existing file\. Received '.*none\.pkl'"):
        read_vecnormalize(tmp_path / "none.pkl")


def test_statistics_of_others_are_read(shared_agents):
    # Written by numpy 1 and gym 0.19; the numbers were read with pickletools.
    statistics = read_vecnormalize(shared_agents / "ppo-Hopper-v3.vecnormalize.pkl")
    assert statistics.observations.mean.shape == (11,)
    assert (statistics.clip, statistics.epsilon) == (10.0, 1e-8)
    assert 1.0 < statistics.observations.mean[0] < 1.6  # a hopper's torso hangs at that height, in metres
    assert statistics.return_scale > 1.0


# Statistics that are none, and files that ask for more memory than they have bytes.


@pytest.mark.parametrize(
    ("attribute", "part", "value", "told"),
    [
        ("obs_rms", "mean", np.nan, r"must have a mean of the observations that is finite\. Received nan"),
        ("obs_rms", "var", -1.0, r"a variance of the observations that is finite and not negative\. Received -1"),
        ("obs_rms", "var", np.inf, r"a variance of the observations that is finite and not negative\. Received inf"),
        ("ret_rms", "var", np.nan, r"a variance of the return that is finite and not negative\. Received nan"),
    ],
)
def test_broken_statistics_are_refused_in_a_file_and_in_memory(attribute, part, value, told, tmp_path):
    stack = gathered()
    running = getattr(stack, attribute)
    setattr(running, part, np.where(np.arange(np.size(running.mean)) == 0, value, getattr(running, part)).squeeze())
    stack.save(tmp_path / "stats.pkl")
    with pytest.raises(AgentFileError, match=told) as raised:
        read_vecnormalize(tmp_path / "stats.pkl")
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=told):
        Statistics.of(stack)


def test_one_part_of_dict_observations_can_be_broken():
    stack = gathered(Dials)
    stack.obs_rms["angle"].mean[0] = np.nan
    with pytest.raises(InputError, match="a mean of `angle` that is finite"):
        Statistics.of(stack)


def test_an_older_file_that_holds_a_set_is_read(tmp_path):
    stack = gathered()
    stack.obs_keys = {"observation", "desired_goal"}  # as Stable-Baselines3 0.8 kept the keys of goals
    stack.save(tmp_path / "stats.pkl")
    assert np.array_equal(read_vecnormalize(tmp_path / "stats.pkl").observations.mean, stack.obs_rms.mean)
    # Protocols before 4 name the class, as those files do.
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(stack, protocol=3))
    assert b"builtins\nset" in (tmp_path / "old.pkl").read_bytes()
    assert np.array_equal(read_vecnormalize(tmp_path / "old.pkl").observations.mean, stack.obs_rms.mean)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04Nr\xff\xff\xff\x0f.",  # entry 2**28 - 1 of the memo: 4.3 GB
        b"Np268435455\n.",
        b"\x80\x05\x96" + (10**9).to_bytes(8, "little"),  # a bytearray of so many bytes
        b"\x80\x04\x8e" + (10**9).to_bytes(8, "little"),
        b"\x80\x04\x95" + (10**9).to_bytes(8, "little"),
        b"]" * 1_100_000 + b".",
    ],
)
def test_no_more_memory_is_taken_than_the_bytes_can_fill(content, tmp_path):
    (tmp_path / "bomb.pkl").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(AgentFileError, match=r"must be a file that `VecNormalize\.save` wrote"):
            read_vecnormalize(tmp_path / "bomb.pkl")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with (tmp_path / "large.pkl").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # no byte of it is written
    with pytest.raises(AgentFileError, match="must have at most 67108864 bytes"):
        read_vecnormalize(tmp_path / "large.pkl")
