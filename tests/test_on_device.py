"""One transfer in, one out, nothing waited for: what can be checked without a GPU, and what only one can show."""

import cloudpickle
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TQC
from stable_baselines3 import SAC
from steered import FunctionCritic, network_critic, same_bits
from torch.utils._python_dispatch import TorchDispatchMode

from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import CriticError, InputError, SpaceError
from offline_eval.measurement.actors import SoftDraws
from offline_eval.policies import actor_of, critic_of
from offline_eval.types import Rule
from offline_eval.wrappers import (
    L2,
    OPEX,
    AgreementGate,
    BestOfN,
    CudaGraph,
    Fused,
    GainOverDisagreement,
    Guarded,
    LineSearch,
    MultiplyAction,
    RandomDirection,
    SteeredPolicy,
    TestTimeTraining,
    TrustRadius,
    fused_policy,
)
from offline_eval.wrappers.cuda_graph import Recorded
from offline_eval.wrappers.host import Steering, noise_generator
from offline_eval.wrappers.transfer import in_one_piece, to_device

CRITIC = network_critic()
OPEX_RULE = OPEX(CRITIC, 0.1, num_steps=3, direction=L2())
RULES = {
    "opex": OPEX_RULE,
    "keep best": OPEX(CRITIC, 0.1, num_steps=2, keep_best=True, max_distance=0.15),
    "best of n": BestOfN(CRITIC, 8),
    "line search": Guarded(OPEX_RULE, LineSearch(8)),
    "gain over disagreement": Guarded(OPEX_RULE, GainOverDisagreement()),
    "agreement": Guarded(OPEX_RULE, AgreementGate()),
    "trust radius": Guarded(OPEX_RULE, TrustRadius((0.1, 0.2))),
    "random direction": RandomDirection(like=OPEX_RULE),
    "multiply": MultiplyAction(1.1),
}


def batch(size=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((size, 2)), rng.uniform(-1, 1, (size, 2)).astype(np.float32)


def both(rule, other, size=40):
    """What two rules do on the same batch."""
    results = []
    for each in (rule, other):
        steering = Steering(each, None, CRITIC.action_space)
        noise = steering.draw_noise([noise_generator(seed) for seed in range(size)])
        results.append([steering(*batch(size, seed), noise) for seed in range(5)])
    return results


# Transfers


def test_arrays_of_one_dtype_travel_in_one_buffer():
    floats, more = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 1), dtype=np.float32)
    images = np.arange(4, dtype=np.uint8).reshape(2, 2)
    first, second, third = in_one_piece([floats, images, more], th.device("cpu"))
    for tensor, array in ((first, floats), (second, images), (third, more)):
        np.testing.assert_array_equal(tensor.numpy(), array)
    assert first.untyped_storage().data_ptr() == third.untyped_storage().data_ptr()
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


def test_a_record_keeps_its_layout_and_loses_double_precision():
    record = {"seen": {"a": np.zeros((2, 3)), "b": np.zeros((2, 4), dtype=np.uint8)}, "given": np.ones((2, 1))}
    there = to_device(record, th.device("cpu"))
    assert there["seen"]["a"].dtype == there["given"].dtype == th.float32
    assert there["seen"]["b"].dtype == th.uint8
    assert there["seen"]["b"].shape == (2, 4)


def test_a_batch_that_is_no_contiguous_piece_arrives_whole():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(in_one_piece([array], th.device("cpu"))[0].numpy(), array)


# Nothing waits


class Waiting(TorchDispatchMode):
    """Raises where a GPU would be waited for."""

    waits = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        by_mask = name in ("aten::index", "aten::index_put") and any(
            index is not None and index.dtype == th.bool for index in args[1]
        )
        assert not by_mask, f"{name} waits for the GPU"
        assert name not in self.waits, f"{name} waits for the GPU"
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_what_waits():
    for wait in (lambda t: t.sum().item(), lambda t: t[t > 0], lambda t: bool(t.sum() > 0)):
        with Waiting(), pytest.raises(AssertionError, match="waits for the GPU"):
            wait(th.ones(3))


@pytest.mark.parametrize("name", RULES)
def test_no_rule_waits_for_the_gpu(name):
    rule = RULES[name]
    observations, actions = (th.as_tensor(array, dtype=th.float32) for array in batch())
    shape = rule.noise_shape(2)
    noise = th.randn(40, *shape, generator=th.Generator().manual_seed(0)) if shape else None
    with Waiting():
        rule(observations, actions, noise)


def test_training_at_test_time_does_not_wait_for_the_gpu(model):
    rule = TestTimeTraining(actor_of(model), critic_of(model), learning_rate=0.01).start()
    space = model.observation_space
    generator = np.random.default_rng(0)
    for step in range(3):
        observations = th.as_tensor(generator.standard_normal((8, *space.shape)), dtype=th.float32)
        actions = th.as_tensor(generator.uniform(-1, 1, (8, *model.action_space.shape)), dtype=th.float32)
        shape = rule.noise_shape(actions.shape[1])
        noise = th.randn(8, *shape, generator=th.Generator().manual_seed(step)) if shape else None
        if step == 0:  # reserves memory, and looks how much there is
            rule(observations, actions, noise)
        else:
            with Waiting():
                rule(observations, actions, noise)


@pytest.mark.parametrize("algorithm", [SAC, TQC])
def test_draws_of_a_soft_policy_are_made_where_the_policy_is(algorithm, monkeypatch):
    # Tensors of the meta device mix with no others, and have no numbers: all goes well until these are asked for.
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, policy_kwargs={"net_arch": [8]}, device="cpu")
    draws = SoftDraws(model)
    observations, noise = np.zeros((5, 3), dtype=np.float32), np.zeros((5, 1), dtype=np.float32)
    actions, bonuses = draws.act(observations, noise)
    assert (actions.shape, bonuses.shape) == ((5, 1), (5,))
    model.policy.to("meta")
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", False)  # it looks at numbers
    with pytest.raises(NotImplementedError, match="no data"):
        draws.act(observations, noise)


# Graphs


def straight(function, examples):
    """What records nothing and calls the function again: the flattening, without a GPU."""
    return lambda tensors: function(*tensors)


@pytest.mark.parametrize("name", RULES)
def test_on_the_cpu_a_graph_is_the_rule_itself(name):
    rule = RULES[name]
    steering = Steering(CudaGraph(rule), None, CRITIC.action_space)
    assert not isinstance(steering.rule, Recorded | CudaGraph)
    plain, graphed = both(rule, CudaGraph(rule))
    for (one, of_one), (other, of_other) in zip(plain, graphed, strict=True):
        assert same_bits(one, other)
        assert all(same_bits(values, of_other[name]) for name, values in of_one.items())


@pytest.mark.parametrize("name", RULES)
def test_what_is_recorded_comes_back_in_the_same_places(name):
    rule = RULES[name]
    plain, recorded = both(rule, Recorded(rule, straight))
    for (one, of_one), (other, of_other) in zip(plain, recorded, strict=True):
        assert same_bits(one, other)
        assert list(of_one) == list(of_other)
        assert all(same_bits(values, of_other[name]) for name, values in of_one.items())


def test_a_shape_is_recorded_at_its_third_call_and_four_shapes_at_most():
    recordings = []

    def record(function, examples):
        recordings.append(len(examples[-1]))
        return straight(function, examples)

    rule = Recorded(OPEX_RULE, record)
    for size in (1, 2, 3, 4, 5, 6):
        observations, actions = (th.as_tensor(array, dtype=th.float32) for array in batch(size))
        for call in range(4):
            rule(observations, actions)
            assert (size in recordings) == (call >= 2 and size <= 4)
    assert recordings == [1, 2, 3, 4]


def test_dictionaries_of_observations_are_recorded_too():
    critic = FunctionCritic(lambda o, a: -(a - o["top"]).square().sum(-1)[None])
    rule = Recorded(OPEX(critic, 0.1), straight)
    for _ in range(4):
        after = rule({"top": th.ones(2, 1)}, th.zeros(2, 1)).actions
    th.testing.assert_close(after, th.full((2, 1), 0.2))


def test_a_critic_that_waits_is_named():
    def record(function, examples):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    rule = Recorded(OPEX_RULE, record)
    observations, actions = (th.as_tensor(array, dtype=th.float32) for array in batch())
    rule(observations, actions)
    rule(observations, actions)
    with pytest.raises(CriticError, match="must not wait for the GPU to be recorded"):
        rule(observations, actions)


def test_a_graph_is_a_rule_that_travels():
    rule = CudaGraph(OPEX_RULE)
    assert isinstance(rule, Rule)
    assert isinstance(cloudpickle.loads(cloudpickle.dumps(rule)), CudaGraph)


@pytest.fixture(scope="module")
def model():
    return SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")


def test_what_cannot_be_recorded_is_refused(model):
    learns = TestTimeTraining(actor_of(model), critic_of(model))
    for make, words in (
        (lambda: CudaGraph(OPEX(CRITIC, [0.1, 0.2])), "one number for all rows"),
        (lambda: CudaGraph(learns), "must not learn while it acts"),
        (lambda: CudaGraph(Guarded(learns, LineSearch())), "must not learn while it acts"),
        (lambda: CudaGraph(CRITIC), "must be a steering rule"),
    ):
        with pytest.raises(InputError, match=words):
            make()


def test_what_is_only_held_by_what_could_learn_is_recorded(model):
    actor, critic = actor_of(model), critic_of(model)
    for rule in (Fused(actor), Fused(actor, OPEX(critic, 0.1)), Guarded(OPEX(critic, 0.1), LineSearch())):
        CudaGraph(rule)
        CudaGraph(CudaGraph(rule))


# Policy and rule as one


@pytest.mark.parametrize("name", [None, "opex", "best", "learns", "multiply"])
def test_a_fused_policy_is_the_steered_policy(model, name):
    critic, actor = critic_of(model), actor_of(model)
    rule = {
        None: None,
        "opex": OPEX(critic, 0.2, num_steps=2, direction=L2()),
        "best": BestOfN(critic, 4),
        "learns": TestTimeTraining(actor, critic, learning_rate=0.01),
        "multiply": MultiplyAction(30.0),
    }[name]
    plan = EpisodePlan.seeded(3, 5)
    apart = evaluate(model, "Pendulum-v1", plan, rule=rule, step_limit=30)
    fused = evaluate(model, "Pendulum-v1", plan, rule=Fused(actor, rule), step_limit=30)
    np.testing.assert_allclose(fused.returns, apart.returns, rtol=1e-5)
    for metric, value in apart.steering.items():
        assert fused.steering[metric] == pytest.approx(value, rel=1e-3, abs=1e-5), metric


def test_a_fused_policy_has_predict(model):
    critic, actor = critic_of(model), actor_of(model)
    rule = OPEX(critic, 0.2, direction=L2())
    fused, apart = fused_policy(actor, rule), SteeredPolicy(model, rule)
    observations = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_allclose(
        fused.predict(observations)[0], apart.predict(observations, deterministic=True)[0], atol=1e-5
    )
    single, _ = fused.predict(observations[0])
    np.testing.assert_allclose(single, apart.predict(observations[0], deterministic=True)[0], atol=1e-5)
    np.testing.assert_allclose(fused.metrics["displacement"], 0.2, rtol=1e-4)


def test_a_steered_policy_says_where_it_computes(model):
    # `evaluate` pads batches on the CPU alone.
    elsewhere = FunctionCritic(action_space=model.action_space)
    elsewhere.device = th.device("meta")
    assert SteeredPolicy(model, OPEX(critic_of(model), 0.1)).device.type == "cpu"
    assert SteeredPolicy(model, OPEX(elsewhere, 0.1), observation_space=spaces.Box(-1, 1, (1,))).device.type == "meta"
    assert fused_policy(actor_of(model)).device.type == "cpu"


def test_a_fused_policy_can_be_recorded(model):
    critic, actor = critic_of(model), actor_of(model)
    rule = Fused(actor, OPEX(critic, 0.2, direction=L2()))
    plain, recorded = (
        Steering(each, None, model.action_space)(np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32), None)
        for each in (rule, Recorded(rule, straight))
    )
    assert same_bits(plain[0], recorded[0])


def test_what_does_not_fit_together_is_refused(model):
    actor = actor_of(model)
    with pytest.raises(InputError, match=r"`actor` must be an actor\. Received SAC"):
        Fused(model)
    actor_elsewhere = actor_of(model)
    actor_elsewhere.device = th.device("meta")
    Fused(actor_elsewhere, MultiplyAction(1.1))  # has nothing that lies anywhere
    with pytest.raises(InputError, match="must be on the actor's device, meta"):
        Fused(actor_elsewhere, RandomDirection(like=OPEX(critic_of(model), 0.1)))
    with pytest.raises(SpaceError):
        Steering(Fused(actor), None, spaces.Box(-1, 1, (1,)))
    elsewhere = FunctionCritic()
    elsewhere.device = th.device("meta")
    with pytest.raises(InputError, match=r"must be on the actor's device, cpu\. Received meta"):
        Fused(actor, OPEX(elsewhere, 0.1))


# Only where there is a GPU

needs_cuda = pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("size", [1, 64, 1024])
@pytest.mark.parametrize("name", ["opex", "best of n", "line search"])
def test_a_graph_replays_what_the_rule_does(name, size):
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [32]}, seed=0, device="cuda")
    critic, actor = critic_of(model), actor_of(model)
    opex = OPEX(critic, 0.1, num_steps=3, direction=L2())
    rule = {"opex": opex, "best of n": BestOfN(critic, 8), "line search": Guarded(opex, LineSearch(8))}[name]
    plain, graphed = (Steering(Fused(actor, each), None, model.action_space) for each in (rule, CudaGraph(rule)))
    for seed in range(6):
        observations = np.random.default_rng(seed).standard_normal((size, 3)).astype(np.float32)
        nothing, generators = np.zeros((size, 1), np.float32), [noise_generator(seed) for _ in range(size)]
        noise = plain.draw_noise(generators)
        one, of_one = plain(observations, nothing, noise)
        other, of_other = graphed(observations, nothing, noise)
        np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_allclose(of_one["predicted_gain"], of_other["predicted_gain"], atol=1e-4)


@needs_cuda
def test_a_step_waits_for_its_result_alone():
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [32]}, seed=0, device="cuda")
    rule = Fused(actor_of(model), OPEX(critic_of(model), 0.1, num_steps=3, direction=L2()))
    observations, nothing = th.zeros(8, 3, device="cuda"), th.zeros(8, 1, device="cuda")
    rule(observations, nothing)
    th.cuda.set_sync_debug_mode("error")
    try:
        rule(observations, nothing)
    finally:
        th.cuda.set_sync_debug_mode("default")
