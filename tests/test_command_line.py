"""The command line: what it prints, and one clear line for what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from offline_eval.cli import main

QUICK = ["--episodes", "3", "--workers", "1", "--step-limit", "60"]


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_evaluate_json_is_one_object_and_nothing_else(capsys, sac_file):
    code, out, err = run(capsys, "evaluate", sac_file, "--env", "Pendulum-v1", *QUICK, "--seed", 7, "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert (result["env"], result["algorithm"]) == ("Pendulum-v1", "SAC")
    assert [set(row) for row in result["episodes"]] == [
        {"seed", "return", "length", "terminated", "truncated", "failed"}
    ] * 3
    assert [row["seed"] for row in result["episodes"]] == [7, 8, 9]
    assert {"mean", "iqm", "median", "ci95", "steps_per_second"} <= result["summary"].keys()
    low, high = result["summary"]["ci95"]
    assert low < result["summary"]["mean"] < high
    assert result["weights_hash"]["before"] == result["weights_hash"]["after"]


def test_evaluate_table_fits_80_columns(capsys, sac_file):
    code, out, _ = run(capsys, "evaluate", sac_file, "--env", "Pendulum-v1", *QUICK)
    assert code == 0
    assert "mean return" in out
    assert "weights      unchanged" in out
    assert "~ may cover less than 95 %" in out  # three episodes


def test_steer_json_has_the_plain_policy_as_step_size_zero(capsys, sac_file):
    arguments = ["--step-sizes", "0,0.1", "--best-of", "4", "--controls", "random,multiply,placebo", "--json"]
    code, out, _ = run(capsys, "steer", sac_file, "--env", "Pendulum-v1", *QUICK, *arguments)
    rows = {row["rule"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    assert list(rows) == [
        "plain",
        "OPEX 0.1",
        "random as OPEX 0.1",
        "best of 4",
        "random as best of 4",
        "times 1.1",
        "times 1.2",
        "placebo 1e-06",
    ]
    assert (rows["plain"]["step_size"], rows["plain"]["paired"], rows["plain"]["against_control"]) == (0.0, None, None)
    opex = rows["OPEX 0.1"]
    assert {"mean_difference", "ci95", "wins", "n"} <= opex["paired"].keys() & opex["against_control"].keys()
    assert opex["control"] == "random as OPEX 0.1"
    assert opex["steering"]["displacement"] == pytest.approx(
        rows["random as OPEX 0.1"]["steering"]["displacement"], rel=0.2
    )
    assert opex["recipe"]["direction"] == {"name": "L2"}
    difference = opex["summary"]["mean"] - rows["plain"]["summary"]["mean"]
    assert opex["paired"]["mean_difference"] == pytest.approx(difference)


def test_steer_trains_at_test_time_beside_its_control(capsys, sac_file):
    arguments = ["--step-sizes", "", "--ttt", "3e-4,1e-2", "--controls", "random", "--json"]
    code, out, _ = run(capsys, "steer", sac_file, "--env", "Pendulum-v1", *QUICK, *arguments)
    rows = {row["rule"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    assert list(rows) == ["plain", "ttt 0.0003", "random as ttt 0.0003", "ttt 0.01", "random as ttt 0.01"]
    assert [row["learning_rate"] for row in rows.values()] == [None, 3e-4, None, 1e-2, None]
    bold = rows["ttt 0.01"]
    assert bold["control"] == "random as ttt 0.01"
    assert {"mean_difference", "ci95"} <= bold["paired"].keys() & bold["against_control"].keys()
    assert bold["recipe"]["states"] == {"name": "Replay", "num_states": 16, "capacity": 1000}
    assert {"displacement", "predicted_gain", "zero_gradient", "non_finite"} <= bold["steering"].keys()
    assert bold["steering"]["displacement"] > rows["ttt 0.0003"]["steering"]["displacement"] > 0
    assert bold["weights_hash"]["before"] == bold["weights_hash"]["after"]


def test_steer_prints_a_verdict_beside_the_control(capsys, sac_file, tmp_path):
    code, out, _ = run(
        capsys, "steer", sac_file, "--env", "Pendulum-v1", *QUICK, "--step-sizes", "0.2", "--out", tmp_path / "run"
    )
    assert code == 0
    assert re.search(r"^OPEX 0.2: (harms|helps|gains|no difference)", out, re.MULTILINE)
    assert max(map(len, out.splitlines()[:12])) <= 80
    assert (tmp_path / "run" / "steering.png").stat().st_size > 10_000


def test_a_wrong_number_of_trap_episodes_leaves_no_folder(capsys, tmp_path, sac_file):
    out = tmp_path / "run"
    code, _, err = run(capsys, "steer", sac_file, "--env", "Pendulum-v1", *QUICK, "--trap-episodes", -1, "--out", out)
    assert code == 2
    assert err.startswith("offline-eval: `--trap-episodes` must be >= 0. Received -1")
    assert err.count("\n") == 1
    assert not out.exists()


def test_another_agents_critic_steers_a_policy_without_one(capsys, tmp_path, sac_file, tiny_ppo_pendulum):
    tiny_ppo_pendulum.save(tmp_path / "ppo.zip")
    arguments = ["steer", tmp_path / "ppo.zip", "--env", "Pendulum-v1", *QUICK, "--controls", "", "--json"]
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "--critic" in err
    code, out, _ = run(capsys, *arguments, "--critic", sac_file)
    assert code == 0
    assert json.loads(out)["rows"][1]["rule"] == "OPEX 0.05"


def test_compare_pairs_with_the_first(capsys, tmp_path, sac_file, tiny_td3):
    tiny_td3.save(tmp_path / "td3.zip")
    arguments = ["compare", sac_file, tmp_path / "td3.zip", "--env", "Pendulum-v1", *QUICK]
    code, out, _ = run(capsys, *arguments, "--json")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert rows[0]["paired"] is None
    assert rows[1]["paired"]["unit"] == "episode"
    assert rows[1]["paired"]["n"] == 3
    code, out, _ = run(capsys, *arguments)
    assert "the unit is the episode" in out


def test_compare_counts_training_seeds(capsys, tmp_path, tiny_sac, tiny_td3):
    for name, model in (("a", tiny_sac), ("b", tiny_td3)):
        for seed in range(2):
            (tmp_path / name / f"seed_{seed}").mkdir(parents=True)
            model.save(tmp_path / name / f"seed_{seed}" / "model.zip")
    code, out, _ = run(
        capsys, "compare", tmp_path / "a", tmp_path / "b", "--env", "Pendulum-v1", *QUICK, "--out", tmp_path / "run"
    )
    assert code == 0
    assert "the unit is the training seed" in out


def test_no_progress_and_no_traceback_in_a_pipe(tmp_path, sac_file):
    command = [sys.executable, "-P", "-m", "offline_eval", "evaluate", str(sac_file), "--env", "Pendulum-v1", *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stderr == ""


AGENT, ENV = "AGENT", ["--env", "Pendulum-v1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere.zip", *ENV], "nowhere.zip"),
        (["evaluate", AGENT, "--env", "Pendulum-v3"], "did you mean Pendulum-v1"),
        (["evaluate", AGENT, "--env", "MountainCarContinuous-v0"], "observation"),
        (["evaluate", AGENT, *ENV, "--episodes", "0"], "`--episodes` must be >= 1. Received 0"),
        (["evaluate", AGENT, *ENV, "--seed", "-1"], "`--seed` must be >= 0. Received -1"),
        (["evaluate", AGENT, *ENV, "--n-envs", "0"], "`--n-envs` must be >= 1. Received 0"),
        (["evaluate", AGENT, *ENV, "--workers", "many"], '`--workers` must be a number or "auto". Received'),
        (["evaluate", AGENT, *ENV, "--resume"], "`--resume` needs the folder to go on with"),
        (["evaluate", AGENT, *ENV, "--log-states"], "`--log-states` needs a folder"),
        (["evaluate", AGENT, *ENV, "--out", "FILE/run"], "`--out` must lie in a folder"),
        (["evaluate", AGENT], "the following arguments are required: --env"),
        (["steer", AGENT, *ENV, "--step-sizes", "a,b"], "`--step-sizes` must be numbers with commas"),
        (["steer", AGENT, *ENV, "--step-sizes", "-0.1"], "`step_size` must be"),
        (["steer", AGENT, *ENV, "--direction", "up"], "`--direction` must be one of raw, l2, sign. Received 'up'"),
        (["steer", AGENT, *ENV, "--controls", "luck"], "must be among random, multiply, placebo"),
        (["steer", "DQN", "--env", "CartPole-v1"], "must be a Box of floats for OPEX"),
        (["compare", AGENT, *ENV], "must be at least two agents"),
        (["mend"], "invalid choice: 'mend'"),
    ],
    ids=lambda value: " ".join(value[:1] + value[3:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, tmp_path, sac_file, tiny_dqn, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    tiny_dqn.save("DQN.zip")
    arguments = [{"AGENT": str(sac_file), "DQN": "DQN.zip"}.get(word, word) for word in arguments]
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("offline-eval: ")
