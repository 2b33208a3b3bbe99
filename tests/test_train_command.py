"""`offline-eval train` and `offline-eval critic`: what they leave behind, how they go on, and what they refuse."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch as th
from environments import Recurrent
from gymnasium import spaces
from stable_baselines3 import TD3

from offline_eval.cli import main
from offline_eval.datasets import open_dataset, save_dataset
from offline_eval.datasets.arrays import from_arrays
from offline_eval.errors import InputError, NonFiniteLoss, StorageError
from offline_eval.policies import critic_of, load_sb3, weights_hash
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.recipes import recipe_of
from offline_eval.training import run as training_run
from offline_eval.training import training
from offline_eval.training.fitted_critic import fit_critic
from offline_eval.training.run import TrainedRun, TrainingPlan
from offline_eval.training.training import train

WORDS = {"policy_kwargs": {"net_arch": [8, 8]}, "batch_size": 16, "device": "cpu"}
SMALL = ["--net-arch", "8,8", "--batch-size", 16, "--device", "cpu", "--workers", 1]
PENDULUM = {
    "observation_space": spaces.Box(np.float32([-1, -1, -8]), np.float32([1, 1, 8])),
    "action_space": spaces.Box(-2.0, 2.0, (1,), np.float32),
}


def rows(count=120, length=20, reward=None, terminated=False, **chosen):
    """Episodes of `length` steps with random numbers in Pendulum's spaces."""
    rng = np.random.default_rng(0)
    ends = np.arange(1, count + 1) % length == 0
    observations = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    after = np.concatenate([observations[1:], observations[:1]])
    after[ends] = 0.5
    rewards = rng.uniform(-1, 0, count) if reward is None else np.full(count, reward)
    actions = chosen.pop("actions", rng.uniform(-2, 2, (count, 1)).astype(np.float32))
    cut = ends & (not terminated)
    return from_arrays(observations, actions, rewards, ends & terminated, cut, after, **{**PENDULUM, **chosen})


@pytest.fixture(scope="module")
def dataset():
    return rows()


@pytest.fixture(scope="module")
def data_file(dataset, tmp_path_factory):
    return save_dataset(dataset, tmp_path_factory.mktemp("data") / "small.hdf5", "d4rl")


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def everything_learned(path):
    learner = OfflineAlgorithm.load(path).learner
    found = {f"{name}.{place}": p for name, group in learner.parameters.items() for place, p in enumerate(group)}
    return found | {f"moments of {name}": moment for name, moment in learner.adam.moments().items()}


def table_of(folder):
    """The rows of progress.csv without what a clock wrote."""
    with (folder / "progress.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "time/gradient_steps_per_second"} for row in csv.DictReader(file)]


# ------------------------------------------------------------------------------------------------ by hand


def test_a_checkpoint_ends_a_row_of_the_log():
    plan = TrainingPlan(recipe_of("bc"), 350, 4)
    assert (plan.log_interval, plan.moments) == (3, [87, 174, 261, 350])


def test_a_resumed_run_has_the_rows_and_columns_of_one_that_was_never_stopped(dataset, tmp_path, monkeypatch):
    plan = TrainingPlan(recipe_of("iql"), 230, 3, WORDS)
    train_part, held = dataset.split(0.34, seed=0)
    train(plan, train_part, tmp_path / "whole", validation=held)
    monkeypatch.setattr(training_run, "_SECONDS_BETWEEN_TELLING", 0.0)
    done = []

    def kill(seed, count, metrics):
        done.append(count)
        if sum(done) == 161:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, train_part, tmp_path / "killed", validation=held, on_steps=kill)
    train(plan, train_part, tmp_path / "killed", validation=held, resume=True)
    folders = [tmp_path / name / "seed_0" for name in ("whole", "killed")]
    assert table_of(folders[0]) == table_of(folders[1])
    heads = [(folder / "progress.csv").read_text().partition("\n")[0] for folder in folders]
    assert heads[0] == heads[1] == ",".join(sorted(heads[0].split(",")))


@pytest.mark.parametrize("content", [b"\xff,1\n", b"a,b\n1,2\n" + b"x" * 140_000 + b",1\n"])
def test_a_damaged_log_of_a_run_is_one_line(dataset, tmp_path, content):
    plan = TrainingPlan(recipe_of("bc"), 8, 2, WORDS)
    train(plan, dataset, tmp_path)
    (tmp_path / "seed_0" / "run.json").unlink()
    (tmp_path / "seed_0" / "checkpoint_8.zip").unlink()
    (tmp_path / "seed_0" / "progress.csv").write_bytes(content)
    with pytest.raises(StorageError, match=r"progress\.csv is damaged .*: remove it, then resume"):
        train(plan, dataset, tmp_path, resume=True)


@pytest.mark.parametrize("content", ["{", "[]", '{"final": 1}', '{"gradient_steps_per_second": 1, "final": 2}'])
def test_a_damaged_end_of_a_run_is_one_line(dataset, tmp_path, content):
    plan = TrainingPlan(recipe_of("bc"), 4, 1, WORDS)
    train(plan, dataset, tmp_path)
    (tmp_path / "seed_0" / "run.json").write_text(content)
    with pytest.raises(StorageError, match=r"run\.json"):
        train(plan, dataset, tmp_path, resume=True)


@pytest.mark.parametrize(("checkpoints", "moments"), [(4, [2, 5, 7, 10]), (1, [10]), (0, []), (20, list(range(1, 11)))])
def test_checkpoints_are_spread_over_the_run_and_end_with_it(checkpoints, moments):
    assert TrainingPlan(recipe_of("bc"), 10, checkpoints).moments == moments


def test_a_fitted_critic_of_episodes_that_pay_one_and_end_says_one(tmp_path, tiny_td3):
    words = {**WORDS, "learning_rate": 1e-2, "gamma": 0.9}
    fitted = fit_critic(tiny_td3, rows(length=1, reward=1.0, terminated=True), tmp_path / "q.zip", 200, words=words)
    assert fitted.initial_value == pytest.approx(1.0, abs=0.05)
    assert (fitted.gamma, fitted.num_starts) == (0.9, 120)


# ------------------------------------------------------------------------------------------------ identities


def test_seeds_side_by_side_give_the_weights_that_they_give_in_turn(dataset, tmp_path):
    plan = TrainingPlan(recipe_of("iql"), 12, 1, WORDS)
    train_part, held = dataset.split(0.34, seed=0)
    found = [
        train(plan, train_part, tmp_path / str(workers), [0, 3], validation=held, workers=workers) for workers in (1, 2)
    ]
    for alone, beside in zip(*found, strict=True):
        assert (alone.seed, alone.final) == (beside.seed, beside.final)
        assert "validation/critic/td_loss" in alone.final
        hashes = {weights_hash(OfflineAlgorithm.load(run.model)) for run in (alone, beside)}
        assert len(hashes) == 1
    assert found[0][0].model == tmp_path / "1" / "seed_0" / "model.zip"
    assert len({weights_hash(OfflineAlgorithm.load(run.model)) for run in found[0]}) == 2


def test_a_killed_run_goes_on_as_if_nothing_had_happened(dataset, tmp_path, monkeypatch):
    plan = TrainingPlan(recipe_of("iql"), 40, 4, WORDS)
    whole = train(plan, dataset, tmp_path / "whole")[0]
    monkeypatch.setattr(training_run, "_SECONDS_BETWEEN_TELLING", 0.0)
    steps = []

    def kill(seed, count, metrics):
        steps.append(count)
        if sum(steps) == 27:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, dataset, tmp_path / "killed", on_steps=kill)
    folder = tmp_path / "killed" / "seed_0"
    assert sorted(file.name for file in folder.glob("*.zip")) == ["checkpoint_10.zip", "checkpoint_20.zip"]
    steps.clear()
    resumed = train(plan, dataset, tmp_path / "killed", resume=True, on_steps=lambda _, count, __: steps.append(count))
    assert (steps[0], sum(steps)) == (20, 40)
    assert resumed[0].final == whole.final
    one, other = (everything_learned(run.model) for run in (whole, resumed[0]))
    assert one.keys() == other.keys()
    assert all(th.equal(value, other[name]) for name, value in one.items())
    assert table_of(folder) == table_of(tmp_path / "whole" / "seed_0")
    assert len(table_of(folder)) == 40


def test_a_policy_that_remembers_has_no_q_of_single_observations(dataset, tmp_path):
    with pytest.raises(InputError, match="must act on the observation alone"):
        fit_critic(Recurrent(), dataset, tmp_path / "q.zip", 4, words=WORDS)


def test_a_finished_seed_is_not_trained_again_and_seeds_may_be_added(dataset, tmp_path):
    plan = TrainingPlan(recipe_of("bc"), 4, 1, WORDS)
    first = train(plan, dataset, tmp_path)[0]
    before = first.model.stat().st_mtime_ns
    both = train(plan, dataset, tmp_path, [0, 1], workers=1, resume=True)
    assert both[0] == first
    assert first.model.stat().st_mtime_ns == before
    assert [run.seed for run in both] == [0, 1]


def test_our_file_acts_in_load_sb3_as_it_was_trained(dataset, tmp_path):
    model = OfflineAlgorithm("iql_sfbc", seed=0, learning_rate=1e-2, **WORDS).fit(dataset, 10)
    model.save(tmp_path / "model.zip")
    opened = load_sb3(tmp_path / "model", "Pendulum-v1", "cpu")
    observations = dataset.store.observations[:50]
    ranked, _ = model.predict(observations, deterministic=True)
    assert np.array_equal(opened.predict(observations, deterministic=True)[0], ranked)
    # Plain TD3 takes the mean of the clone, not the best of its samples.
    assert not np.allclose(TD3.load(tmp_path / "model").predict(observations, deterministic=True)[0], ranked)


def test_one_seed_that_diverges_does_not_stop_the_others(tmp_path):
    done = []

    def job(folder, seed, on_steps):
        if seed == 0:
            raise NonFiniteLoss(7, (1, 2), ())
        done.append(folder.name)
        return TrainedRun(seed, folder / "model.zip", None, {})

    with pytest.raises(NonFiniteLoss, match="step 7"):
        training._in_turn(job, tmp_path, [0, 1, 2], None)
    assert done == ["seed_1", "seed_2"]


# ------------------------------------------------------------------------------------------------ what is refused


def refused(capsys, *arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("offline-eval: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("recipe", "options", "said"),
    [
        ("iq", [], ["'iq'", "did you mean iql"]),
        ("fqe", [], ["offline-eval critic"]),
        ("iql", ["--set", "value.expectil=0.9"], ["value.expectil", "Implicit has expectile"]),
        ("iql", ["--set", "expectile=0.9"], ["Recipe has value, extraction"]),
        ("iql", ["--set", "value.expectile"], ["--set", "value.expectile=0.9"]),
        ("iql", ["--set", "value.expectile=1.5"], ["expectile", "1.5"]),
        ("iql", ["--set", "value.expectile=high"], ["float", "high"]),
        ("bc", ["--batch-size", "500"], ["(500)", "Received 120"]),
        ("bc", ["--gradient-steps", "0"], ["--gradient-steps", ">= 1"]),
        ("bc", ["--seeds", "0"], ["--seeds", ">= 1"]),
        ("bc", ["--checkpoints", "-1"], ["--checkpoints", ">= 0"]),
        ("bc", ["--validation", "1"], ["--validation", "1.0"]),
        ("bc", ["--net-arch", "8,x"], ["--net-arch", "'x'"]),
        ("bc", ["--learning-rate", "-1"], ["--learning-rate", "-1.0"]),
        ("bc", ["--learning-rate", "nan"], ["--learning-rate", "finite", "nan"]),
        ("bc", ["--device", "foo"], ["device", "'foo'", "auto, cpu or cuda"]),
        ("iql_ddpg_bc", ["--set", "extraction.bc_coef=nan"], ["bc_coef", "finite", "nan"]),
        ("IQL", [], ["'IQL'", "did you mean iql"]),
        ("bc", ["--env", "MountainCarContinuous-v0"], ["observations", "use the environment"]),
        ("bc", ["--env", "Pendulam-v1"], ["Pendulam-v1"]),
    ],
)
def test_train_refuses_in_one_line(capsys, data_file, tmp_path, recipe, options, said):
    base = ["train", recipe, "--dataset", data_file, "--gradient-steps", 4, *SMALL, "--out", tmp_path / "out"]
    err = refused(capsys, *base, *options)
    assert all(text in err for text in said), err


def test_discrete_actions_under_ddpg_bc_are_refused(capsys, tmp_path):
    data = rows(actions=np.arange(120) % 3, action_space=spaces.Discrete(3))
    path = save_dataset(data, tmp_path / "discrete.hdf5", "d4rl")
    err = refused(capsys, "train", "ddpg_bc", "--dataset", path, *SMALL, "--out", tmp_path / "out")
    assert "must be a Box: DDPGBCExtraction learns continuous actions" in err
    assert not (tmp_path / "out").exists()


def test_a_truncated_and_an_empty_file_are_refused(capsys, data_file, tmp_path):
    import h5py

    broken = tmp_path / "broken.hdf5"
    broken.write_bytes(data_file.read_bytes()[: data_file.stat().st_size // 2])
    empty = tmp_path / "empty.hdf5"
    with h5py.File(empty, "w") as file:
        for name, shape in {"observations": (0, 3), "actions": (0, 1), "rewards": (0,), "terminals": (0,)}.items():
            file[name] = np.zeros(shape, np.float32)
    for path in (broken, empty, tmp_path / "nowhere.hdf5"):
        err = refused(capsys, "train", "bc", "--dataset", path, *SMALL, "--out", tmp_path / "out")
        assert path.name in err or "empty" in err


def test_a_full_disk_at_a_checkpoint_keeps_the_ones_before(dataset, tmp_path, monkeypatch):
    plan = TrainingPlan(recipe_of("bc"), 9, 3, WORDS)
    flush, done = os.fsync, []

    def full(handle):
        done.append(handle)
        if len(done) > 3:  # the manifest, one checkpoint and its folder
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"checkpoint_6.zip .*No space left"):
        train(plan, dataset, tmp_path)
    monkeypatch.undo()
    assert [file.name for file in (tmp_path / "seed_0").glob("*.zip*")] == ["checkpoint_3.zip"]
    assert train(plan, dataset, tmp_path, resume=True)[0].model.exists()


def test_a_loss_that_breaks_keeps_the_checkpoints_before(tmp_path):
    # Losses are looked at before every checkpoint, so that the last one is a good one.
    plan = TrainingPlan(recipe_of("iql"), 60, 60, WORDS)
    broken = rows()
    broken.store.rewards[17] = 1e38  # finite, and its square is not
    with pytest.raises(NonFiniteLoss, match="is not finite") as error:
        train(plan, broken, tmp_path)
    assert 17 in error.value.transitions
    kept = sorted(int(file.stem.partition("_")[2]) for file in (tmp_path / "seed_0").glob("*.zip"))
    assert kept == list(range(1, error.value.step))
    last = OfflineAlgorithm.load(tmp_path / "seed_0" / f"checkpoint_{kept[-1]}.zip")
    assert np.isfinite(last.predict(np.zeros((1, 3), np.float32))[0]).all()


def test_one_episode_trains_and_cannot_be_divided(capsys, tmp_path):
    one = save_dataset(rows(count=20), tmp_path / "one.hdf5", "d4rl")
    base = ["train", "iql", "--dataset", one, "--gradient-steps", 4, *SMALL, "--out", tmp_path / "out"]
    assert "at least two trajectories" in refused(capsys, *base, "--validation", "0.5")
    assert run(capsys, *base)[0] == 0


def test_resume_needs_the_same_run_and_a_new_run_a_new_folder(dataset, tmp_path):
    train(TrainingPlan(recipe_of("bc"), 4, 1, WORDS), dataset, tmp_path)
    with pytest.raises(InputError, match="must be a new folder"):
        train(TrainingPlan(recipe_of("bc"), 4, 1, WORDS), dataset, tmp_path)
    for plan, data, name in (
        (TrainingPlan(recipe_of("bc"), 5, 1, WORDS), dataset, "gradient_steps"),
        (TrainingPlan(recipe_of("iql"), 4, 1, WORDS), dataset, "recipe"),
        (TrainingPlan(recipe_of("bc"), 4, 1, {**WORDS, "gamma": 0.9}), dataset, "words"),
        (TrainingPlan(recipe_of("bc"), 4, 1, WORDS), rows(reward=1.0), "dataset"),
    ):
        with pytest.raises(InputError, match=f"the folder's {name} is"):
            train(plan, data, tmp_path, resume=True)


def test_critic_refuses_in_one_line(capsys, data_file, sac_file, tmp_path):
    base = ["critic", sac_file, "--dataset", data_file, "--gradient-steps", 4, *SMALL[:-2]]
    assert "must not exist yet" in refused(capsys, *base, "--out", data_file)
    assert "gamma" in refused(capsys, *base, "--out", tmp_path / "q.zip", "--gamma", 2)
    assert "--learning-rate" in refused(capsys, *base, "--out", tmp_path / "q.zip", "--learning-rate", "nan")
    assert "'foo'" in refused(capsys, *base, "--out", tmp_path / "q.zip", "--device", "foo")
    seen = spaces.Box(np.float32([-1, -1, -8]), np.float32([1, 1, 8]))
    other = rows(observation_space=seen, action_space=spaces.Box(-1, 1, (1,)))
    path = save_dataset(other, tmp_path / "other.hdf5", "d4rl")
    base[3] = path
    assert "action bounds that the agent was trained with" in refused(capsys, *base, "--out", tmp_path / "q.zip")


# ------------------------------------------------------------------------------------------------ smoke


def test_train_prints_one_json_object_with_the_evaluation(capsys, data_file, tmp_path):
    out = tmp_path / "out"
    arguments = ["--gradient-steps", 20, "--set", "value.expectile=0.9", "--seeds", 2, "--checkpoints", 2, "--json"]
    playing = ["--env", "Pendulum-v1", "--episodes", 2, "--step-limit", 5]
    code, printed, err = run(capsys, "train", "iql", "--dataset", data_file, *SMALL, *arguments, *playing, "--out", out)
    assert (code, err) == (0, "")
    result = json.loads(printed)
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    for trained in result["runs"]:
        assert set(trained) == {"seed", "model", "gradient_steps_per_second", "final", "evaluation"}
        assert trained["gradient_steps_per_second"] > 0
        assert {"critic/td_loss", "value/loss", "actor/loss"} <= trained["final"].keys()
        assert [episode["length"] for episode in trained["evaluation"]["episodes"]] == [5, 5]
        assert trained["evaluation"]["algorithm"] == "OfflineAlgorithm"
    folder = out / "seed_1"
    assert {file.name for file in folder.glob("*.zip")} == {"model.zip", "checkpoint_10.zip", "checkpoint_20.zip"}
    assert OfflineAlgorithm.load(folder / "model.zip").recipe.value.expectile == 0.9
    assert json.loads((out / "result.json").read_text()) == result


def test_train_prints_a_table_that_fits_80_columns(capsys, data_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "train", "td3_bc", "--dataset", data_file, "--gradient-steps", 4, *SMALL)
    assert code == 0
    assert "td3_bc on small.hdf5 (120 transitions, 6 trajectories)" in out
    assert "models in td3_bc-small/seed_*/model.zip" in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_the_critic_of_an_agent_without_one_steers_it(capsys, data_file, tmp_path, tiny_ppo_pendulum):
    tiny_ppo_pendulum.save(tmp_path / "ppo.zip")
    arguments = ["--gradient-steps", 20, *SMALL[:-2], "--out", tmp_path / "q", "--json"]
    code, printed, err = run(capsys, "critic", tmp_path / "ppo.zip", "--dataset", data_file, *arguments)
    assert (code, err) == (0, "")
    result = json.loads(printed)
    assert result["critic"] == str(tmp_path / "q.zip")
    assert result["gamma"] == tiny_ppo_pendulum.gamma
    assert result["initial_value"]["n"] == 6
    assert critic_of(load_sb3(tmp_path / "q.zip", open_dataset(data_file))).gamma == tiny_ppo_pendulum.gamma
    playing = [
        "--env",
        "Pendulum-v1",
        "--episodes",
        2,
        "--step-limit",
        5,
        "--workers",
        1,
        "--trap-episodes",
        0,
        "--json",
    ]
    code, printed, err = run(capsys, "steer", tmp_path / "ppo.zip", "--critic", tmp_path / "q.zip", *playing)
    assert (code, err) == (0, "")
    assert len(json.loads(printed)["rows"]) > 3


HELD = """
import sys
from pathlib import Path
from offline_eval.files import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_two_runs_do_not_share_a_folder(dataset, tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-P", "-c", HELD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    plan = TrainingPlan(recipe_of("bc"), 4, 1, WORDS)
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="is being written by another process"):
            train(plan, dataset, tmp_path)
        assert list(tmp_path.iterdir()) == []
        other.stdin.close()
        other.wait()
    assert len(train(plan, dataset, tmp_path)) == 1


def test_a_critic_asks_for_the_environment_where_the_bounds_of_actions_are_a_guess(sac_file, tmp_path, capsys):
    generator = np.random.default_rng(0)
    rows = 40
    ends = np.arange(rows) % 10 == 9
    np.savez(
        tmp_path / "wide.npz",
        observations=generator.normal(size=(rows, 3)).astype(np.float32),
        actions=generator.uniform(-1.9, 1.9, (rows, 1)).astype(np.float32),
        rewards=generator.normal(size=rows),
        terminals=ends,
    )
    words = ["critic", str(sac_file), "--dataset", str(tmp_path / "wide.npz"), "--out", str(tmp_path / "q.zip")]
    assert main([*words, "--gradient-steps", "2", "--net-arch", "4", "--batch-size", "4"]) == 2
    assert "`--env` must be given, as the data set does not say the bounds of actions" in capsys.readouterr().err


def test_the_seed_of_episodes_is_not_that_of_training(capsys, data_file, tmp_path):
    words = ["train", "bc", "--dataset", data_file, "--gradient-steps", 2, *SMALL, "--env", "Pendulum-v1"]
    words += ["--episodes", 2, "--step-limit", 3, "--out", tmp_path / "run", "--json"]
    code, _, err = run(capsys, *words, "--seed", 7)
    assert code == 2
    assert "`--seed` must say which seed is meant. Received '7': --seeds N is for training, --eval-seed S" in err
    code, _, err = run(capsys, *words, "--eval-seed", -1)
    assert "`--eval-seed` must be >= 0. Received -1" in err
    code, out, _ = run(capsys, *words, "--eval-seed", 7)
    assert [row["seed"] for row in json.loads(out)["runs"][0]["evaluation"]["episodes"]] == [7, 8]
