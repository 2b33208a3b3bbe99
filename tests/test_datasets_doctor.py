"""Each fault is found when planted, alone, and not found when not planted."""

import importlib.util
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium import spaces

from offline_eval.datasets import evidence, known_spaces
from offline_eval.datasets.alignment import Steps, reward_shift
from offline_eval.datasets.arrays import from_arrays, from_trajectories
from offline_eval.datasets.doctor import CODES, check, has_errors
from offline_eval.datasets.duplicates import duplicated_tail
from offline_eval.datasets.opening import open_dataset, save_dataset
from offline_eval.datasets.rows import Rows
from offline_eval.errors import DatasetError, SpaceError

DOOR = Path(__file__).resolve().parents[2] / "shared" / "data" / "demonstrations" / "door-human.hdf5"
STEPS = 60


def play(env, episodes, policy):
    """Flat rows of episodes; `policy(observation, generator)` gives the action."""
    names = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    columns = {name: [] for name in names}
    for episode in range(episodes):
        generator = np.random.default_rng(episode)
        observation, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action = policy(observation, generator)
            following, reward, terminated, truncated, _ = env.step(action)
            for name, value in zip(names, (observation, action, reward, terminated, truncated, following), strict=True):
                columns[name].append(value)
            observation, ended = following, terminated or truncated
    return {name: np.array(values) for name, values in columns.items()}


@pytest.fixture(scope="module")
def pendulum():
    env = gymnasium.make("Pendulum-v1", max_episode_steps=STEPS)
    return play(env, 40, lambda _, generator: generator.uniform(-2, 2, 1).astype(np.float32))


@pytest.fixture
def rows(pendulum):
    return {name: array.copy() for name, array in pendulum.items()}


def codes(findings):
    return [finding.code for finding in findings]


def written(folder, arrays, **attributes):
    path = folder / "data.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        file.attrs.update(attributes)
    return path


def test_the_codes_are_the_eleven_of_the_documentation():
    assert CODES == (
        "timeouts_as_terminals",
        "crossing_next_observations",
        "shifted_rewards",
        "zero_rewards",
        "ends_in_a_row",
        "duplicated_tail",
        "actions_out_of_bounds",
        "constant_dimension",
        "exploding_dimension",
        "non_finite",
        "missing_episode_ends",
    )


# ------------------------------------------------------------------------------------------------------ clean data


@pytest.mark.parametrize("left_out", [(), ("next_observations",)])
def test_a_clean_file_has_no_findings(tmp_path, rows, left_out):
    arrays = {name: array for name, array in rows.items() if name not in left_out}
    assert check(written(tmp_path, arrays)) == ()
    assert check(Rows(**arrays), action_space=spaces.Box(-2, 2, (1,))) == ()


@pytest.mark.parametrize("layout", ["d4rl", "minari", "packed"])
def test_a_clean_data_set_has_no_findings_in_any_layout(tmp_path, rows, layout):
    dataset = from_arrays(
        rows["observations"],
        rows["actions"],
        rows["rewards"],
        rows["terminals"],
        rows["timeouts"],
        rows["next_observations"],
        action_space=spaces.Box(-2, 2, (1,)),
    )
    assert check(dataset) == ()
    assert check(save_dataset(dataset, tmp_path / "data", layout)) == ()


def pushing(observation, generator):
    return np.float32([np.sign(observation[1])]) * generator.uniform(0.5, 1.0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("env_id", "episodes", "policy"),
    [
        ("CartPole-v1", 60, lambda _, generator: int(generator.integers(2))),  # terminates; every reward is 1
        ("MountainCarContinuous-v0", 20, pushing),  # terminates at the goal, with a reward of its own
        ("Acrobot-v1", 4, lambda _, generator: int(generator.integers(3))),  # time limit of 500
    ],
)
def test_clean_data_of_other_environments(env_id, episodes, policy):
    env = gymnasium.make(env_id)
    arrays = play(env, episodes, policy)
    assert check(Rows(**arrays), action_space=env.action_space) == ()


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5", "Reacher-v5"])
def test_clean_data_of_mujoco(env_id, tmp_path, monkeypatch):
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log where it stands
    env = gymnasium.make(env_id, **({"max_episode_steps": 250} if env_id == "HalfCheetah-v5" else {}))
    size = env.action_space.shape
    arrays = play(env, 60 if env_id != "HalfCheetah-v5" else 8, lambda _, g: g.uniform(-1, 1, size).astype(np.float32))
    assert check(Rows(**arrays), action_space=env.action_space) == ()
    late = arrays | {"rewards": np.roll(arrays["rewards"], 1)}
    assert codes(check(Rows(**late), action_space=env.action_space)) == ["shifted_rewards"]


def test_a_small_deterministic_world_is_clean():
    # A chain of 5 states walked to its end: rows repeat all over, episodes end by themselves after 4 or 6 steps.
    parts = []
    for episode in range(60):
        path = [0, 1, 2, 3, 4] if episode % 3 else [0, 1, 0, 1, 2, 3, 4]
        steps = len(path) - 1
        moves = np.diff(path)
        ends = np.arange(steps) == steps - 1
        parts.append(
            {
                "observations": np.eye(5)[path],
                "actions": (moves > 0).astype(int),
                "rewards": ends.astype(float),
                "terminated": ends,
                "truncated": np.zeros(steps, bool),
            }
        )
    assert check(from_trajectories(parts)) == ()


@pytest.mark.skipif(not DOOR.is_file(), reason="the door demonstrations are not here")
def test_the_door_demonstrations_have_one_true_finding():
    (finding,) = check(DOOR)
    assert (finding.code, finding.severity) == ("actions_out_of_bounds", "warning")
    assert "5.6 %" in finding.where
    assert "-1.27875 to 1.36619" in finding.where
    assert not has_errors((finding,))


# ---------------------------------------------------------------------------------------------------- planted faults


def only(findings, code, severity):
    assert codes(findings) == [code], findings
    assert findings[0].severity == severity
    assert findings[0].fix
    assert findings[0].as_dict() == {
        "code": code,
        "severity": severity,
        "where": findings[0].where,
        "fix": findings[0].fix,
    }
    assert has_errors(findings) == (severity == "error")
    return findings[0]


def test_timeouts_flagged_as_terminals(tmp_path, rows):
    done = rows["timeouts"]
    planted = rows | {"terminals": done, "timeouts": np.zeros_like(done)}
    finding = only(check(written(tmp_path, planted)), "timeouts_as_terminals", "error")
    assert "40 of 40 trajectories end as terminal after exactly 60 steps" in finding.where
    only(check(Rows(**planted), max_episode_steps=STEPS), "timeouts_as_terminals", "error")
    # A limit that was never reached: then the ends are what they say.
    assert check(Rows(**planted), max_episode_steps=1000) == ()


def test_timeouts_flagged_as_both(rows):
    finding = only(check(Rows(**rows | {"terminals": rows["timeouts"]})), "timeouts_as_terminals", "error")
    assert "40 of 40 timeouts are flagged as terminal, too" in finding.where


def ending_after(lengths, width=3):
    """Rows of trajectories that terminate after the given numbers of steps."""
    generator = np.random.default_rng(0)
    count = sum(lengths)
    terminals = np.zeros(count, bool)
    terminals[np.cumsum(lengths) - 1] = True
    observations = generator.standard_normal((count, width)).cumsum(axis=0)
    return Rows(observations, generator.uniform(-1, 1, (count, 1)), generator.standard_normal(count), terminals)


def test_ends_that_happen_to_be_equally_late_are_no_time_limit():
    assert check(ending_after([301, 301, 299, 301, 302, 301])) == ()  # an agent that always falls about there
    assert check(ending_after([301, 301, 288, 301])) == ()
    assert check(ending_after([120, 80, 200, 77])) == ()  # one coincidence with a round number
    assert codes(check(ending_after([120, 200, 80, 200, 77, 200]))) == ["timeouts_as_terminals"]
    assert codes(check(ending_after([301, 301, 288, 301]), max_episode_steps=301)) == ["timeouts_as_terminals"]


def test_next_observations_of_the_next_episode(tmp_path, rows):
    last = np.flatnonzero(rows["timeouts"])[:-1]
    rows["next_observations"][last] = rows["observations"][last + 1]
    finding = only(check(written(tmp_path, rows)), "crossing_next_observations", "error")
    assert "39 of 39" in finding.where
    assert f"row {last[0]}" in finding.where
    dataset = from_arrays(*(rows[name] for name in rows), action_space=spaces.Box(-2, 2, (1,)))
    only(check(dataset), "crossing_next_observations", "error")


def test_next_observations_that_cross_after_terminals_are_a_warning():
    clean = ending_after([20, 31, 45, 12, 50, 33, 28, 19])
    observations = clean.observations.copy()
    for start in np.flatnonzero(clean.terminals)[:-1] + 1:
        observations[start:] += 20 - observations[start] * 0.5  # a reset is a jump
    crossing = Rows(
        observations,
        clean.actions,
        clean.rewards,
        clean.terminals,
        np.zeros_like(clean.terminals),
        np.concatenate([observations[1:], observations[-1:] + 0.1]),
    )
    only(check(crossing), "crossing_next_observations", "warning")


def test_an_episode_that_goes_on_after_a_timeout_does_not_cross(rows):
    # One long walk, cut every 60 steps without a reset, as maze2d's new goals do.
    env = gymnasium.make("Pendulum-v1", max_episode_steps=2400)
    walk = play(env, 1, lambda _, generator: generator.uniform(-2, 2, 1).astype(np.float32))
    walk["timeouts"] = rows["timeouts"]
    assert check(Rows(**walk), action_space=env.action_space) == ()


@pytest.mark.parametrize(("shift", "row"), [(1, "i - 1"), (-1, "i + 1")])
def test_shifted_rewards(tmp_path, rows, shift, row):
    rows["rewards"] = np.roll(rows["rewards"], shift)
    finding = only(check(written(tmp_path, rows)), "shifted_rewards", "error")
    assert f"belongs to row {row}" in finding.where
    del rows["next_observations"]
    only(check(written(tmp_path, rows)), "shifted_rewards", "error")


def test_rewards_for_the_state_reached_are_not_shifted():
    generator = np.random.default_rng(0)
    parts = []
    for _ in range(40):
        position, velocity = generator.uniform(-1, 1, 2), np.zeros(2)
        states = [position]
        actions = generator.uniform(-1, 1, (50, 2))
        for action in actions:
            velocity = 0.8 * velocity + 0.1 * action
            position = position + velocity
            states.append(position)
        states = np.array(states)
        ends = np.arange(50) == 49
        flags = {"terminated": np.zeros(50, bool), "truncated": ends}
        parts.append({"observations": states, "actions": actions, "rewards": -np.abs(states[1:]).sum(axis=1)} | flags)
    dataset = from_trajectories(parts)
    assert check(dataset) == ()
    # Late by one they are a function of the state left, as good as any: only the seams of the episodes give them away.
    late = np.roll(dataset.rewards, 1).reshape(40, 50)
    moved = [part | {"rewards": rewards} for part, rewards in zip(parts, late, strict=True)]
    assert codes(check(from_trajectories(moved))) == ["shifted_rewards"]


def test_late_sparse_rewards():
    # Paid on reaching the goal, which ends the episode: one row late, the pay lies in the next episode's first row.
    clean = ending_after([20, 31, 45, 12, 50, 33, 28, 19])
    paid = clean.terminals.astype(float)
    arguments = (clean.observations.astype(np.float32), clean.actions.astype(np.float32))
    assert reward_shift(Steps(*arguments, np.roll(paid, 1), clean.terminals)).lag == -1
    assert reward_shift(Steps(*arguments, paid, clean.terminals)) is None


def test_rewards_that_no_row_explains_say_nothing():
    clean = ending_after([100] * 20)
    arguments = (clean.observations.astype(np.float32), clean.actions.astype(np.float32))
    assert reward_shift(Steps(*arguments, clean.rewards, clean.terminals)) is None


def test_zero_rewards(tmp_path, rows):
    rows["rewards"][:] = 0
    finding = only(check(written(tmp_path, rows)), "zero_rewards", "error")
    assert "all 2400 are 0" in finding.where
    rows["rewards"][5] = 1e-9
    assert "zero_rewards" not in codes(check(Rows(**rows)))


def test_ogbench_has_no_rewards_which_is_a_warning(tmp_path, rows):
    path = tmp_path / "pointmaze-medium-navigate-v0.npz"
    np.savez(path, observations=rows["observations"], actions=rows["actions"] / 2, terminals=rows["timeouts"])
    only(check(path), "zero_rewards", "warning")


@pytest.mark.parametrize("count", [1, 25, 60, 150])
def test_a_tail_that_repeats_earlier_rows(tmp_path, rows, count):
    planted = {name: np.concatenate([array, array[-count:]]) for name, array in rows.items()}
    findings = check(written(tmp_path, planted))
    assert "duplicated_tail" in codes(findings)
    (finding,) = (finding for finding in findings if finding.code == "duplicated_tail")
    assert f"the last {count} rows, from row 2400 on, are copies of those at row {2400 - count}" in finding.where
    assert set(codes(findings)) <= {"duplicated_tail", "missing_episode_ends"}


def test_a_first_trajectory_appended_again(rows):
    planted = {name: np.concatenate([array, array[:STEPS]]) for name, array in rows.items()}
    finding = only(check(Rows(**planted)), "duplicated_tail", "warning")
    assert "the last 60 rows" in finding.where
    dataset = from_arrays(*(planted[name] for name in rows), action_space=spaces.Box(-2, 2, (1,)))
    only(check(dataset), "duplicated_tail", "warning")


def test_room_that_was_never_filled(rows):
    planted = {name: np.concatenate([array, np.zeros_like(array[:50])]) for name, array in rows.items()}
    findings = check(Rows(**planted))
    (finding,) = (finding for finding in findings if finding.code == "duplicated_tail")
    assert finding.severity == "error"
    assert "0 throughout" in finding.where


def test_a_system_at_rest_is_no_duplicate(rows):
    for name in ("observations", "actions", "rewards", "next_observations"):
        rows[name][-20:] = rows[name][-20]
    assert duplicated_tail(Rows(**rows)) is None


def test_actions_outside_of_their_box(tmp_path, rows):
    rows["actions"][7, 0] = 2.5
    box = '{"type": "Box", "dtype": "float32", "shape": [1], "low": [-2.0], "high": [2.0]}'
    finding = only(check(written(tmp_path, rows, action_space=box)), "actions_out_of_bounds", "warning")
    assert "actions[7, 0] = 2.5" in finding.where
    rows["actions"][7, 0] = 2.00001  # rounding
    assert check(written(tmp_path, rows, action_space=box)) == ()


def seldom_beyond_one(_, generator):
    """Nine of ten actions lie in [-1, 1], which looks like the box; the others are the environment's largest."""
    return generator.choice([-2.0, 2.0, *generator.uniform(-1, 1, 18)], 1).astype(np.float32)


def test_the_box_is_that_of_the_environment_which_the_file_names(tmp_path):
    arrays = play(gymnasium.make("Pendulum-v1"), 6, seldom_beyond_one)
    assert codes(check(written(tmp_path, arrays))) == ["actions_out_of_bounds"]  # nobody says which environment
    path = written(tmp_path, arrays, env_id="Pendulum-v1")
    assert check(path) == ()
    assert check(written(tmp_path, arrays).rename(tmp_path / "Pendulum-v1.hdf5")) == ()
    archive = tmp_path / "Pendulum-v1.npz"
    np.savez(archive, **arrays)
    assert check(archive) == ()
    arrays["actions"][70, 0] = 9.0
    finding = only(check(written(tmp_path, arrays, env_id="Pendulum-v1")), "actions_out_of_bounds", "warning")
    assert "actions[70, 0] = 9" in finding.where
    assert "from -2 to 2, which is Pendulum-v1's" in finding.where
    assert "--env ID" in finding.fix


def test_an_id_given_wins_over_the_one_in_the_file(tmp_path):
    path = written(tmp_path, play(gymnasium.make("Pendulum-v1"), 6, seldom_beyond_one), env_id="HalfCheetah-v5")
    assert codes(check(path)) == ["actions_out_of_bounds"]
    assert check(path, env_id="Pendulum-v1") == ()
    assert check(open_dataset(path), env_id="Pendulum-v1") == ()


@pytest.mark.parametrize(
    ("env_id", "size"), [("HalfCheetah-v5", 1.0), ("halfcheetah-medium-v2", 1.0), ("Humanoid-v4", 0.4)]
)
def test_boxes_of_mujoco_are_known_without_mujoco(tmp_path, monkeypatch, env_id, size):
    monkeypatch.setattr(gymnasium, "make", None)
    generator = np.random.default_rng(0)
    arrays = {
        "observations": generator.standard_normal((2000, 5)).astype(np.float32),
        "actions": generator.uniform(-size, size, (2000, 3)).astype(np.float32),
        "rewards": generator.standard_normal(2000),
        "terminals": np.zeros(2000, bool),
        "timeouts": np.arange(2000) % 1000 == 999,
    }
    assert check(written(tmp_path, arrays, env_id=env_id)) == ()
    assert check(written(tmp_path, arrays).rename(tmp_path / f"{env_id}.hdf5")) == ()
    arrays["actions"] *= 1.5
    only(check(written(tmp_path, arrays, env_id=env_id)), "actions_out_of_bounds", "warning")
    only(check(written(tmp_path, arrays).rename(tmp_path / f"{env_id}.hdf5")), "actions_out_of_bounds", "warning")


@pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="MuJoCo is not installed")
def test_the_table_of_boxes_is_mujocos_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log where it stands
    for name in known_spaces._MUJOCO:
        space = gymnasium.make(f"{name}-v5").action_space
        rows = np.zeros((2, *space.shape), np.float32)
        assert known_spaces.known_spaces(f"{name}-v5", rows, rows)[1] == space


@pytest.mark.parametrize("env_id", ["NoSuch-v0", "no_such_module:Pendulum-v1", "LunarLanderContinuous-v3", "Opened-v0"])
def test_a_name_that_says_nothing_is_no_failure(tmp_path, rows, env_id, monkeypatch):
    def opened():
        raise AssertionError("environments of other packages are not made")

    monkeypatch.setitem(gymnasium.registry, "Opened-v0", gymnasium.envs.registration.EnvSpec("Opened-v0", opened))
    assert check(written(tmp_path, rows, env_id=env_id)) == ()


def test_a_space_that_the_actions_do_not_have_the_shape_of_is_refused(tmp_path, rows):
    with pytest.raises(SpaceError, match=r"`action_space` must have the shape of the data's actions, \(1,\).*\(3,\)"):
        check(written(tmp_path, rows), action_space=spaces.Box(-1, 1, (3,)))


def test_actions_that_a_discrete_space_lacks():
    clean = ending_after([20, 31, 45])
    moves = np.random.default_rng(0).integers(0, 4, len(clean))
    rows = Rows(clean.observations, moves, clean.rewards, clean.terminals)
    assert check(rows) == check(rows, action_space=spaces.Discrete(4)) == ()
    finding = only(check(rows, action_space=spaces.Discrete(3)), "actions_out_of_bounds", "error")
    assert f"{(moves == 3).sum()} rows" in finding.where


def test_a_constant_dimension(tmp_path, rows):
    for name in ("observations", "next_observations"):
        rows[name] = np.insert(rows[name], 1, 0.3, axis=1)
    finding = only(check(written(tmp_path, rows)), "constant_dimension", "warning")
    assert "1 of 4 dimensions of the observations: observations[1]" in finding.where
    rows["observations"][3, 1] = 0.4
    assert "constant_dimension" not in codes(check(Rows(**rows)))


@pytest.mark.parametrize(("value", "severity"), [(1e5, "warning"), (1e9, "error")])
def test_a_diverged_dimension(tmp_path, rows, value, severity):
    rows["observations"][130, 2] = value
    del rows["next_observations"]
    finding = only(check(written(tmp_path, rows)), "exploding_dimension", severity)
    assert "observations[2] at row 130" in finding.where


def test_a_dimension_in_other_units(rows):
    for name in ("observations", "next_observations"):
        rows[name][:, 0] *= 1e5
    finding = only(check(Rows(**rows)), "exploding_dimension", "warning")
    assert finding.where.startswith("observations[0]:")
    for name in ("observations", "next_observations"):
        rows[name][:, 0] /= 1e3
    assert check(Rows(**rows)) == ()


def test_nan_and_infinity_by_index(tmp_path, rows):
    rows["observations"][77, 1] = np.nan
    rows["observations"][99, 0] = np.nan
    del rows["next_observations"]
    finding = only(check(written(tmp_path, rows)), "non_finite", "error")
    assert finding.where == "observations[77, 1], and 1 more numbers"
    rows["rewards"] = rows["rewards"].astype(np.float64)
    rows["rewards"][5] = 1e300  # float32 cannot hold it
    findings = check(written(tmp_path, rows))
    assert codes(findings) == ["non_finite", "non_finite"]
    assert findings[1].where == "rewards[5]"


@pytest.mark.parametrize("name", ["observations", "next_observations", "actions", "rewards"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300])
def test_bad_numbers_anywhere_are_one_finding(rows, name, value):
    rows[name] = rows[name].astype(np.float64)
    rows[name][100:103] = value
    if name == "observations":
        del rows["next_observations"]
    only(check(Rows(**rows)), "non_finite", "error")


def test_a_file_without_episode_ends(tmp_path, rows):
    rows["timeouts"][:] = False
    del rows["next_observations"]
    finding = only(check(written(tmp_path, rows)), "missing_episode_ends", "error")
    assert "none of 2400 rows" in finding.where
    del rows["timeouts"]
    only(check(written(tmp_path, rows)), "missing_episode_ends", "error")


def test_ends_that_only_next_observations_tell_are_a_warning(tmp_path, rows):
    del rows["timeouts"]
    finding = only(check(written(tmp_path, rows)), "missing_episode_ends", "warning")
    assert "39 rows" in finding.where


def test_single_ends_that_are_missing(tmp_path, rows):
    rows["timeouts"][np.flatnonzero(rows["timeouts"])[[3, 8]]] = False
    finding = only(check(written(tmp_path, rows)), "missing_episode_ends", "error")  # next_observations tell
    assert "2 rows" in finding.where
    assert "first row 239" in finding.where
    del rows["next_observations"]
    finding = only(check(written(tmp_path, rows)), "missing_episode_ends", "warning")  # their length tells
    assert "2 trajectories are longer than 60 steps" in finding.where


def test_timeouts_that_nobody_flagged_among_terminals(tmp_path):
    planted = ending_after([120, 80, 1300, 77, 500])
    arrays = {name: getattr(planted, name) for name in ("observations", "actions", "rewards", "terminals")}
    path = written(tmp_path, arrays)
    assert check(path) == ()  # nobody knows the limit
    only(check(path, max_episode_steps=1000), "missing_episode_ends", "error")
    only(check(path.rename(tmp_path / "hopper-medium-v0.hdf5")), "missing_episode_ends", "error")  # 1000 steps


@pytest.mark.parametrize("missing", [2, 5])
def test_ends_that_are_missing_where_the_limit_is_known(tmp_path, missing):
    arrays = play(gymnasium.make("Pendulum-v1"), 10, lambda _, g: g.uniform(-2, 2, 1).astype(np.float32))
    del arrays["next_observations"]
    assert check(written(tmp_path, arrays, env_id="Pendulum-v1")) == ()
    arrays["timeouts"][np.flatnonzero(arrays["timeouts"])[: 2 * missing : 2]] = False
    finding = only(check(written(tmp_path, arrays, env_id="Pendulum-v1")), "missing_episode_ends", "error")
    assert f"{missing} of {10 - missing} trajectories are longer than the time limit of 200 steps" in finding.where
    assert "--max-episode-steps" in finding.fix
    assert check(written(tmp_path, arrays, env_id="Pendulum-v1", max_episode_steps=400)) == ()  # the file knows better


def test_several_faults_are_several_findings(tmp_path, rows):
    rows["rewards"][:] = 0
    rows["observations"][3, 0] = np.nan
    rows["actions"][:, 0] = 0.5
    del rows["next_observations"]
    findings = check(written(tmp_path, rows))
    assert codes(findings) == ["zero_rewards", "constant_dimension", "non_finite"]


def test_of_very_many_rows_the_first_and_the_last_are_examined(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_ROWS", 720)
    path = written(tmp_path, rows)
    assert check(path) == ()
    rows["observations"][1200, 0] = np.nan  # found wherever it is
    rows["next_observations"][1199, 0] = np.nan
    findings = check(written(tmp_path, rows))
    assert codes(findings) == ["non_finite", "non_finite"]
    dataset = (
        from_arrays(*(pend for pend in (rows[name][:1200] for name in rows)), max_episode_steps=STEPS) if 0 else None
    )
    assert dataset is None


def test_what_cannot_be_read_is_an_error_and_no_finding(tmp_path, rows):
    path = written(tmp_path, rows)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match="cut short"):
        check(path)
    with pytest.raises(DatasetError, match="an empty data set"):
        check(written(tmp_path, {name: array[:0] for name, array in rows.items()}))
    with pytest.raises(DatasetError, match="must exist"):
        check(tmp_path / "absent")
