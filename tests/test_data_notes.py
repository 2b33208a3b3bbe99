"""What a data set's reader decided reaches whoever uses the data; what cannot be learned from is refused."""

import json

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC

from offline_eval.cli import main
from offline_eval.datasets import describe, from_arrays
from offline_eval.datasets.notes import notes_of
from offline_eval.errors import InputError
from offline_eval.policies import OfflineAlgorithm
from offline_eval.policies.learnable import check_learnable, training_notes
from offline_eval.policies.recipes import RECIPES, recipe_of

BOX = spaces.Box(-2.0, 2.0, (1,), np.float32)
COUNT = 400


def data(rewards=None, actions=None, terminated=False, observations=None, space=BOX, **words):
    generator = np.random.default_rng(0)
    ends = np.arange(COUNT) % 40 == 39
    observations = generator.standard_normal((COUNT, 3)) if observations is None else observations
    return from_arrays(
        observations,
        generator.uniform(-2, 2, (COUNT, 1)) if actions is None else actions,
        generator.standard_normal(COUNT) if rewards is None else rewards,
        ends & terminated,
        ends & (not terminated),
        np.roll(observations, -1, axis=0),
        action_space=space,
        **words,
    )


# ------------------------------------------------------------------------------------------------- what is said


def test_a_data_set_that_states_all_has_no_notes():
    assert notes_of(data()) == ()


def test_what_is_guessed_and_what_lacks_is_told():
    notes = notes_of(data(rewards=np.zeros(COUNT), space=None), "the other data")
    assert [note.split(":")[0] for note in notes] == ["the other data"] * 2
    assert "all 400 rewards are 0" in notes[0]
    assert "Box(" in notes[1]
    assert describe(data(rewards=np.zeros(COUNT))).notes == notes_of(data(rewards=np.zeros(COUNT)))


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    """A reward-free file of Pendulum, and two agents of it."""
    folder = tmp_path_factory.mktemp("pendulum")
    generator = np.random.default_rng(0)
    ends = np.zeros(COUNT, np.float32)
    ends[39::40] = 1
    angles = generator.uniform(-3, 3, COUNT)
    observations = np.stack([np.cos(angles), np.sin(angles), generator.uniform(-8, 8, COUNT)], axis=1)
    np.savez(
        folder / "free.npz",
        observations=observations.astype(np.float32),
        actions=generator.uniform(-2, 2, (COUNT, 1)).astype(np.float32),
        terminals=ends,
    )
    model = SAC("MlpPolicy", "Pendulum-v1", seed=0, policy_kwargs={"net_arch": [8]}, buffer_size=10)
    for step in (1, 2):
        model.save(folder / f"model_{step}_steps.zip")
    return folder


def test_commands_that_use_the_data_say_that_they_have_no_rewards(pendulum, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    agent, file = str(pendulum / "model_1_steps.zip"), str(pendulum / "free.npz")
    small = ["--env", "Pendulum-v1", "--episodes", "2"]
    measuring = ["measure", agent, "--dataset", file, *small, "--quick", "--states", "4", "--step-limit", "20"]
    for command in (
        ["train", "bc", "--dataset", file, "--gradient-steps", "2", "--net-arch", "4", "--out", "bc"],
        measuring,
        ["track", str(pendulum), "--dataset", file, *small, "--out", "track.json"],
    ):
        main(command)
        assert "no rewards" in " ".join(capsys.readouterr().out.split()), command[0]
    main([*measuring, "--json"])
    assert any("no rewards" in note for note in json.loads(capsys.readouterr().out)["manifest"]["notes"])
    assert any("no rewards" in note for note in json.loads((tmp_path / "bc/result.json").read_text())["notes"])
    main(["report", "track.json"])
    assert "no rewards" in next(tmp_path.glob("*.html")).read_text()


@pytest.mark.parametrize("command", ["train", "critic"])
def test_no_command_learns_a_value_from_no_rewards(pendulum, tmp_path, capsys, command):
    subject = "td3_bc" if command == "train" else str(pendulum / "model_1_steps.zip")
    words = ["--dataset", str(pendulum / "free.npz"), "--gradient-steps", "2", "--env", "Pendulum-v1"]
    assert main([command, subject, *words, "--out", str(tmp_path / "out.zip")]) == 2
    assert "no rewards: all of its" in capsys.readouterr().err
    assert not (tmp_path / "out.zip").exists()


def test_notes_of_training():
    iql, cloning, standardised = (recipe_of(name) for name in ("iql", "bc", "td3_bc"))
    assert training_notes(data(), iql) == ()
    (note,) = training_notes(data(rewards=np.linspace(0, 3e12, COUNT)), iql)
    assert note.startswith("rewards reach 3e+12")
    assert training_notes(data(rewards=np.linspace(0, 3e12, COUNT)), cloning) == ()
    (note,) = training_notes(data(rewards=np.full(COUNT, 2.0)), iql)
    assert note.startswith("every reward is 2 and nothing terminates")
    assert training_notes(data(rewards=np.full(COUNT, 2.0), terminated=True), iql) == ()
    wide = np.random.default_rng(0).normal(size=(COUNT, 3)) * [1, 1, 5e4]
    (note,) = training_notes(data(observations=wide), cloning)
    assert note.startswith("observations[2] has a standard deviation of")
    assert training_notes(data(observations=wide), standardised) == ()
    (note,) = training_notes(data(actions=np.where(np.arange(COUNT) < 4, 9.0, 0.5)[:, None]), cloning)
    assert note.startswith("1 % of the actions' numbers lie outside")


# ------------------------------------------------------------------------------------------------ what is refused


def fit(recipe, dataset, **words):
    small = {"net_arch": [4]}
    return OfflineAlgorithm(recipe, seed=0, batch_size=16, policy_kwargs=small, **words).fit(dataset, 3)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_refuses_data_without_transitions(recipe):
    count = 30
    single = from_arrays(
        np.zeros((count, 2)), np.zeros((count, 1)), np.ones(count), np.zeros(count, bool), np.ones(count, bool)
    )
    with pytest.raises(InputError, match=r"must have transitions that can be learned from.*30 steps, none"):
        fit(recipe, single)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_what_learns_values_wants_rewards(recipe):
    free = data(rewards=np.zeros(COUNT))
    if recipe_of(recipe).value is None:
        fit(recipe, free)
        return
    with pytest.raises(InputError, match=r"must have rewards.*no rewards: all of its 400 transitions have 0.*bc"):
        fit(recipe, free)


def test_without_a_discount_something_must_terminate():
    with pytest.raises(InputError, match="`gamma` must be < 1 for data in which nothing terminates"):
        fit("iql", data(), gamma=1.0)
    fit("iql", data(terminated=True), gamma=1.0)
    fit("bc", data(), gamma=1.0)
    check_learnable(data(), learns_value=False, gamma=1.0)


def test_no_value_is_asked_of_where_only_a_policy_is_extracted():
    model = fit("iql", data())
    free = data(rewards=np.zeros(COUNT))
    assert model.extract(free, 2) is model


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.int32])
def test_observations_of_any_precision_train(dtype):
    values = np.random.default_rng(0).integers(0, 255, (COUNT, 3)).astype(dtype)
    model = fit("td3_bc", data(observations=values))
    actions, _ = model.predict(values[:5].astype(model.observation_space.dtype), deterministic=True)
    assert np.isfinite(actions).all()


def test_a_constant_column_is_centred_and_not_scaled():
    values = np.random.default_rng(0).standard_normal((COUNT, 3))
    values[:, 1] = 0.1
    statistics = recipe_of("td3_bc").observations.statistics(data(observations=values))
    assert statistics.scale[1] == 1.0
    assert statistics.mean[1] == pytest.approx(0.1)


def test_one_episode_trains():
    count = 300
    ends = np.arange(count) == count - 1
    generator = np.random.default_rng(0)
    whole = from_arrays(
        generator.standard_normal((count, 3)),
        generator.uniform(-1, 1, (count, 1)),
        generator.standard_normal(count),
        np.zeros(count, bool),
        ends,
    )
    assert np.isfinite(list(fit("iql", whole).last_metrics.values())).all()
