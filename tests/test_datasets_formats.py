"""Minari folders, logs, NumPy archives and SB3's buffers."""

import json
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium import spaces

from offline_eval.datasets.arrays import from_trajectories
from offline_eval.datasets.doctor import check
from offline_eval.datasets.log import ShardWriter
from offline_eval.datasets.minari import read_minari, write_minari
from offline_eval.datasets.opening import open_dataset, save_dataset
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.replay_buffer import from_replay_buffer
from offline_eval.errors import DatasetError, InputError, SpaceError

BOX = spaces.Box(-2, 2, (1,), np.float32)


def parts(lengths=(4, 6, 3), seed=0, **changes):
    generator = np.random.default_rng(seed)
    for k, length in enumerate(lengths):
        ends = np.zeros(length, bool)
        ends[-1] = True
        yield {
            "observations": generator.standard_normal((length + 1, 2)).astype(np.float32),
            "actions": generator.uniform(-2, 2, (length, 1)).astype(np.float32),
            "rewards": generator.standard_normal(length).astype(np.float32),
            "terminated": ends & (k == 1),
            "truncated": ends & (k != 1),
        } | changes


# -------------------------------------------------------------------------------------------------------- Minari


def test_minari_round_trip(tmp_path):
    dataset = from_trajectories(parts(), action_space=BOX, env_id="Pendulum-v1")
    save_dataset(dataset, tmp_path / "mine", "minari")
    for place in ("mine", "mine/data", "mine/data/main_data.hdf5"):
        again = open_dataset(tmp_path / place)
        assert again.fingerprint == dataset.fingerprint
        assert (again.observation_space, again.action_space) == (dataset.observation_space, BOX)
        assert again.source.env_id == "Pendulum-v1"
        assert again.source.max_episode_steps == 200  # from the registered environment
        assert not again.source.assumed_action_space


def test_minari_itself_opens_what_we_write(tmp_path):
    minari = pytest.importorskip("minari")
    dataset = from_trajectories(parts(), action_space=BOX, env_id="Pendulum-v1")
    theirs = minari.MinariDataset(write_minari(dataset, tmp_path / "mine-v3") / "data")
    assert theirs.id == "mine-v3"
    assert theirs.total_steps == 13
    assert theirs.env_spec.id == "Pendulum-v1"
    for ours, episode in zip(dataset, theirs, strict=True):
        assert np.array_equal(ours.observations, episode.observations)
        assert np.array_equal(ours.actions, episode.actions)
        assert np.array_equal(ours.terminated, episode.terminations)


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_we_open_what_minari_writes(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    from minari.data_collector.episode_buffer import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    written = list(parts())
    buffers = [
        EpisodeBuffer(
            id=k,
            seed=k,
            observations=list(part["observations"]),
            actions=list(part["actions"]),
            rewards=[float(reward) for reward in part["rewards"]],
            terminations=[bool(x) for x in part["terminated"]],
            truncations=[bool(x) for x in part["truncated"]],
        )
        for k, part in enumerate(written)
    ]
    minari.create_dataset_from_buffers(
        "ns/theirs-v0",
        buffers,
        observation_space=spaces.Box(-9, 9, (2,), np.float32),
        action_space=BOX,
        data_format="hdf5",
    )
    metadata = tmp_path / "ns" / "theirs-v0" / "data" / "metadata.json"
    references = {"ref_min_score": -1000.0, "ref_max_score": 0.0}  # Minari writes them where it can make the env
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | references))
    dataset = open_dataset(tmp_path / "ns" / "theirs-v0")
    assert dataset.fingerprint == from_trajectories(written).fingerprint
    assert dataset.action_space == BOX
    assert dataset.source.reference_returns == (-1000.0, 0.0)
    assert dataset.source.env_id == "ns/theirs-v0"


def test_more_than_ten_episodes_keep_their_order(tmp_path):
    dataset = from_trajectories(parts(range(2, 14)))
    assert open_dataset(write_minari(dataset, tmp_path / "a")).lengths.tolist() == list(range(2, 14))


def test_unknown_final_observations_and_dicts_survive_minari(tmp_path):
    written = [
        part | {"observations": {"near": part["observations"], "far": part["observations"][:, :1]}} for part in parts()
    ]
    written[2] |= {"final_known": False}
    dataset = from_trajectories(written)
    again = open_dataset(write_minari(dataset, tmp_path / "a"))
    assert again.final_known.tolist() == [True, True, False]
    assert set(again.observations) == {"near", "far"}
    assert again.num_transitions == 12
    assert again.fingerprint == dataset.fingerprint


def test_folders_of_links_name_the_file_that_is_missing(tmp_path):
    data = write_minari(from_trajectories(parts()), tmp_path / "a") / "data"
    (data / "main_data.hdf5").rename(data / "far.hdf5")
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for number in range(3):
            file[f"episode_{number}"] = h5py.ExternalLink("far.hdf5", f"/episode_{number}")
    assert open_dataset(tmp_path / "a").lengths.tolist() == [4, 6, 3]
    (data / "far.hdf5").unlink()
    with pytest.raises(DatasetError, match=r"must exist.*far\.hdf5"):
        open_dataset(tmp_path / "a")


def logged(length, key, seed=0):
    (part,) = parts((length,), seed)
    return LoggedEpisode(policy_actions=part["actions"], key=key, **part)


def test_logs_open_in_the_order_of_their_plan_and_ahead_of_their_index(tmp_path):
    arguments = {"env_id": "Pendulum-v1", "observation_space": spaces.Box(-9, 9, (2,)), "action_space": BOX}
    with ShardWriter(tmp_path / "log", **arguments) as writer:
        writer.write([logged(5, key=2), logged(4, key=0)])
    killed = ShardWriter(tmp_path / "log", index_interval=1e9, **arguments)
    killed.write([logged(7, key=1)])  # never closed: the index does not know
    dataset = open_dataset(tmp_path / "log")
    assert dataset.lengths.tolist() == [4, 7, 5]
    assert np.array_equal(dataset[1].observations, logged(7, 1).observations)
    assert dataset.source.env_id == "Pendulum-v1"
    assert dataset.action_space == BOX


def test_a_folder_stands_for_the_one_log_in_it(tmp_path):
    save_dataset(from_trajectories(parts(), action_space=BOX), tmp_path / "run" / "states" / "plain", "minari")
    inner = open_dataset(tmp_path / "run" / "states" / "plain")
    for above in (tmp_path / "run", tmp_path / "run" / "states"):
        dataset = open_dataset(above)
        assert dataset.fingerprint == inner.fingerprint
        assert dataset.source.path == str(tmp_path / "run" / "states" / "plain")
        assert check(above) == check(inner)
    save_dataset(from_trajectories(parts(), action_space=BOX), tmp_path / "run" / "states" / "opex", "minari")
    for above in (tmp_path / "run", tmp_path / "run" / "states"):
        with pytest.raises(DatasetError, match=r"must hold one data set.*2 of them: name one: .*opex, .*plain"):
            open_dataset(above)
        with pytest.raises(DatasetError, match="must hold one data set"):
            check(above)
    with pytest.raises(DatasetError, match="must be a data set"):
        open_dataset(tmp_path)


def test_what_minari_folders_can_have_wrong(tmp_path):
    data = write_minari(from_trajectories(parts()), tmp_path / "a") / "data"
    metadata = json.loads((data / "metadata.json").read_text())

    def damage(**changes):
        (data / "metadata.json").write_text(json.dumps(metadata | changes))

    damage(data_format="arrow")
    with pytest.raises(DatasetError, match=r"HDF5 layout. Received 'arrow': read it with Minari"):
        open_dataset(tmp_path / "a")
    damage(observation_space='{"type": "Graph"}')
    with pytest.raises(DatasetError, match="must be a space as Minari writes it"):
        open_dataset(tmp_path / "a")
    damage(action_space=json.dumps({"type": "Discrete", "n": 3, "start": 0}))
    with pytest.raises(SpaceError, match="must hold actions of Discrete"):
        open_dataset(tmp_path / "a")
    damage()
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_1/actions"]
    with pytest.raises(DatasetError, match="episode_1 without actions"):
        open_dataset(tmp_path / "a")
    with h5py.File(data / "main_data.hdf5", "a") as file:
        file["episode_1/actions"] = np.zeros((5, 1))
    with pytest.raises(DatasetError, match=r"actions of trajectory 1` must be of shape \(6, 1\)"):
        open_dataset(tmp_path / "a")
    content = (data / "main_data.hdf5").read_bytes()
    (data / "main_data.hdf5").write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match=r"whole, readable HDF5 file.*cut short"):
        open_dataset(tmp_path / "a")
    with h5py.File(data / "main_data.hdf5", "w"):
        pass
    with pytest.raises(DatasetError, match="an empty data set"):
        open_dataset(tmp_path / "a")
    with pytest.raises(DatasetError, match="must hold main_data"):
        read_minari(tmp_path)


def test_jpeg_frames_and_nested_spaces_are_refused(tmp_path):
    data = write_minari(from_trajectories(parts((2,))), tmp_path / "a") / "data"
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_0/observations"]
        frames = file["episode_0"].create_dataset("observations", (3,), h5py.vlen_dtype(np.uint8))
        for row in range(3):
            frames[row] = np.arange(row + 1, dtype=np.uint8)
    with pytest.raises(DatasetError, match=r"no JPEG frames.*jpeg_encoding=False"):
        open_dataset(tmp_path / "a")
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_0/observations"]
        file["episode_0/observations/outer/inner"] = np.zeros((3, 1))
    with pytest.raises(DatasetError, match=r"no nested Dict.*flatten"):
        open_dataset(tmp_path / "a")


# -------------------------------------------------------------------------------------------------------- archives


def test_ogbench_keeps_the_last_row_as_the_final_observation(tmp_path):
    observations = np.arange(8, dtype=np.float64)[:, None]
    actions = np.arange(8, dtype=np.float32)[:, None] / 10
    terminals = np.array([0, 0, 0, 1, 0, 0, 0, 1])
    path = tmp_path / "pointmaze-medium-navigate-v0.npz"
    np.savez(path, observations=observations, actions=actions, terminals=terminals, qpos=np.zeros((8, 2)))
    dataset = open_dataset(path)
    assert dataset.lengths.tolist() == [3, 3]
    rows = dataset.transitions()
    assert rows.observations[:, 0].tolist() == [0, 1, 2, 4, 5, 6]
    assert rows.next_observations[:, 0].tolist() == [1, 2, 3, 5, 6, 7]
    assert np.allclose(rows.actions[:, 0], [0, 0.1, 0.2, 0.4, 0.5, 0.6])  # 0.3 and 0.7 were never taken
    assert rows.masks.min() == 1
    assert dataset.truncated.tolist() == [False, False, True] * 2
    assert "no rewards" in dataset.source.notes[0]
    assert (dataset.source.format, dataset.source.env_id) == ("ogbench", "pointmaze-medium-navigate-v0")


def test_flat_archives_under_either_names(tmp_path):
    rows = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1)), "rewards": np.ones(4)}
    ends = np.array([0, 1, 0, 1], bool)
    np.savez(tmp_path / "a.npz", **rows, terminals=ends & [1, 1, 0, 0], timeouts=ends & [0, 0, 1, 1])
    np.savez_compressed(tmp_path / "b.npz", **rows, terminated=ends & [1, 1, 0, 0], truncated=ends & [0, 0, 1, 1])
    one, two = open_dataset(tmp_path / "a.npz"), open_dataset(tmp_path / "b.npz")
    assert one.fingerprint == two.fingerprint
    assert one.terminated.tolist() == [False, True, False, False]
    np.savez(tmp_path / "c.npz", observations=np.zeros((4, 2)), truncated=ends)
    with pytest.raises(DatasetError, match="actions, rewards not found"):
        open_dataset(tmp_path / "c.npz")


def test_masks_say_what_terminated_and_terminals_where_episodes_end(tmp_path):
    observations = np.arange(6, dtype=np.float64)[:, None]
    arrays = {
        "observations": observations,
        "next_observations": np.array([1, 2, 2.5, 4, 5, 5.5])[:, None],
        "actions": np.zeros((6, 1)),
        "rewards": np.ones(6),
        "terminals": np.array([0.0, 0, 1, 0, 0, 1]),
    }
    np.savez(tmp_path / "a.npz", **arrays, masks=np.ones(6, np.float32))
    dataset = open_dataset(tmp_path / "a.npz")
    assert dataset.lengths.tolist() == [3, 3]
    assert not dataset.terminated.any()
    assert dataset.truncated.tolist() == [False, False, True] * 2
    assert dataset.transitions().next_observations[:, 0].tolist() == [1, 2, 2.5, 4, 5, 5.5]
    np.savez(tmp_path / "b.npz", **arrays, masks=np.float32([1, 1, 1, 1, 1, 0]))
    dataset = open_dataset(tmp_path / "b.npz")
    assert dataset.terminated.tolist() == [False] * 5 + [True]
    assert dataset.truncated.tolist() == [False, False, True, False, False, False]
    np.savez(tmp_path / "c.npz", **arrays, masks=np.full(6, 0.5))
    with pytest.raises(DatasetError, match=r"`masks` must be 0 \(terminated\) or 1. Received .*0\.5"):
        open_dataset(tmp_path / "c.npz")


def test_pickled_and_damaged_archives_are_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", observations=np.array([{}], object), actions=np.zeros(1), terminals=np.zeros(1))
    with pytest.raises(DatasetError, match="because that runs code"):
        open_dataset(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", observations=np.zeros((400, 2)), actions=np.zeros((400, 1)), terminals=np.zeros(400))
    content = bytearray((tmp_path / "b.npz").read_bytes())
    content[500:700] = b"x" * 200
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="must be a whole NumPy archive"):
        open_dataset(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", observations=np.zeros((0, 2)), actions=np.zeros((0, 2)), terminals=np.zeros(0))
    with pytest.raises(DatasetError, match="an empty data set"):
        open_dataset(tmp_path / "c.npz")


# -------------------------------------------------------------------------------------------------------- SB3


class Counting(gymnasium.Env):
    """Observations count the steps of all episodes; every other episode terminates after 5 steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = BOX

    def __init__(self):
        self.now, self.episode = 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now, self.steps, self.episode = self.now + 100, 0, self.episode + 1
        return np.array([self.now], np.float32), {}

    def step(self, action):
        self.now, self.steps = self.now + 1, self.steps + 1
        return np.array([self.now], np.float32), 0.0, self.steps == 5 and self.episode % 2 == 0, False, {}


def test_a_replay_buffer_becomes_trajectories_in_the_environments_units(tiny_td3):
    buffer = tiny_td3.replay_buffer
    dataset = from_replay_buffer(buffer)
    assert dataset.num_steps == dataset.num_transitions == 40
    assert dataset.action_space == tiny_td3.action_space
    rows = dataset.transitions()
    assert np.array_equal(rows.observations, buffer.observations[:40, 0])
    assert np.array_equal(rows.next_observations, buffer.next_observations[:40, 0])
    assert np.allclose(rows.actions, 2 * buffer.actions[:40, 0])  # Pendulum's box is [-2, 2]
    assert np.allclose(from_replay_buffer(buffer, scaled=False).actions, buffer.actions[:40, 0])


@pytest.mark.parametrize("saves_memory", [False, True])
def test_a_full_buffer_is_read_from_its_oldest_step(saves_memory):
    from stable_baselines3 import TD3

    env = gymnasium.wrappers.TimeLimit(Counting(), 8)
    model = TD3(
        "MlpPolicy",
        env,
        buffer_size=30,
        learning_starts=1000,
        seed=0,
        optimize_memory_usage=saves_memory,
        replay_buffer_kwargs={"handle_timeout_termination": not saves_memory},
    )
    model.learn(47)
    dataset = from_replay_buffer(model.replay_buffer)
    rows = dataset.transitions()
    steps = 29 if saves_memory else 30  # the oldest observation is overwritten by then
    assert dataset.num_steps == steps
    assert rows.observations[-1, 0] == model.replay_buffer.observations[(47 - 1) % 30, 0, 0]
    going_on = rows.masks == 1
    assert (rows.next_observations[going_on] - rows.observations[going_on] == 1).all()  # never into another episode
    if not saves_memory:
        assert set(dataset.lengths[1:-1]) == {5, 8}  # terminated and timed out
        assert dataset.terminated.sum() == (dataset.lengths == 5).sum()


def test_columns_of_several_environments_stay_apart():
    from stable_baselines3.common.buffers import ReplayBuffer

    buffer = ReplayBuffer(20, spaces.Box(-9e9, 9e9, (1,)), spaces.Discrete(3), device="cpu", n_envs=2)
    for step in range(4):
        now = np.array([[step], [100 + step]], np.float32)
        infos = [{"TimeLimit.truncated": step == 1}, {}]
        buffer.add(now, now + 1, np.array([[1], [2]]), np.zeros(2), np.array([step == 1, False]), infos)
    dataset = from_replay_buffer(buffer)
    assert dataset.lengths.tolist() == [2, 2, 4]
    assert dataset.actions.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert dataset[2].observations[:, 0].tolist() == [100, 101, 102, 103, 104]
    assert not dataset.terminated.any()


def test_empty_and_foreign_buffers_are_refused():
    from stable_baselines3.common.buffers import ReplayBuffer

    with pytest.raises(DatasetError, match="an empty ReplayBuffer"):
        from_replay_buffer(ReplayBuffer(4, BOX, BOX, device="cpu"))
    with pytest.raises(InputError, match="a list without"):
        from_replay_buffer([])


def test_the_package_needs_neither_torch_nor_sb3(tmp_path):
    import subprocess
    import sys

    names = [
        path.stem for path in Path(open_dataset.__code__.co_filename).parent.glob("*.py") if path.stem != "__init__"
    ]
    lines = "; ".join(f"import offline_eval.datasets.{name}" for name in names)
    check = "import sys; assert not {'torch', 'stable_baselines3', 'minari', 'mujoco'} & set(sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", f"{lines}; {check}"], check=True, cwd=tmp_path)
