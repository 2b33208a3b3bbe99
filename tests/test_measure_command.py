"""`collect`, `measure` and `track` from the command line: what they print, keep, and refuse in one line."""

from __future__ import annotations

import json

import pytest

from offline_eval.cli import main
from offline_eval.datasets.opening import open_dataset

ENV = ["--env", "Pendulum-v1"]
FEW = ["--quick", "--episodes", "3", "--states", "6", "--rollouts", "2"]


def run(capsys, *arguments):
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def td3_folder(tiny_td3, tmp_path_factory):
    """An agent's file and data collected from it."""
    folder = tmp_path_factory.mktemp("td3")
    tiny_td3.save(folder / "td3.zip")
    words = [folder / "td3.zip", *ENV, "--steps", 1200, "--noise", "0.1,0.5", "--out", folder / "data.hdf5"]
    assert main(["collect", *map(str, words)]) == 0
    return folder


def test_collect_says_what_it_wrote(capsys, td3_folder, tmp_path):
    words = [td3_folder / "td3.zip", *ENV, "--steps", 500, "--noise", "0.1,0.5", "--out", tmp_path / "d.hdf5", "--json"]
    code, out, err = run(capsys, "collect", *words)
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["steps"], found["episodes"]) == (600, 3)
    assert [(row["noise"], row["episodes"]) for row in found["levels"]] == [(0.1, 2), (0.5, 1)]
    assert open_dataset(tmp_path / "d.hdf5").num_steps == 600
    assert [path.name for path in tmp_path.iterdir()] == ["d.hdf5"]
    code, _, err = run(capsys, "collect", *words)
    assert code == 2
    assert "`--out` must not exist yet" in err


def test_collect_random_into_a_log(capsys, tmp_path):
    code, out, _ = run(capsys, "collect", "random", *ENV, "--steps", 200, "--out", tmp_path / "log")
    assert code == 0
    assert "200 steps in 1 episodes" in out
    assert open_dataset(tmp_path / "log").num_steps == 200


def test_measure_prints_keeps_and_resumes(capsys, td3_folder, tmp_path):
    words = [td3_folder / "td3.zip", *ENV, "--dataset", td3_folder / "data.hdf5", *FEW, "--out", tmp_path / "run"]
    code, out, err = run(capsys, "measure", *words)
    assert code == 0
    assert "rank of Q" in out
    assert err.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    assert max(map(len, out.splitlines())) <= 80 + len("data: ") + len(str(td3_folder))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["finished"]
    assert manifest["command"].startswith("offline-eval measure ")
    assert (tmp_path / "run" / "report.html").exists()
    assert list((tmp_path / "run" / "rollouts").rglob("*.npz"))
    code, _, err = run(capsys, "measure", *words)
    assert code == 2
    assert "`--out` must be a new folder" in err
    code, out, _ = run(capsys, "measure", *words, "--resume", "--json")
    found = json.loads(out)
    assert code == 0
    for section in ("performance", "q_rank", "q_bias", "regret", "policy_error", "coverage"):
        assert found[section] == manifest["result"][section], section


def test_measure_without_data_needs_no_more_than_an_agent(capsys, td3_folder):
    code, out, err = run(capsys, "measure", td3_folder / "td3.zip", *ENV, *FEW, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["schema"] == 1
    assert found["manifest"]["agent"] == "td3.zip"
    assert found["coverage"] == {"skipped": "no data set was given"}
    assert found["q_rank"]["ceiling"]["value"] == 1.0  # a deterministic policy has exact labels


def test_another_agent_can_be_oracle_and_critic(capsys, td3_folder, tiny_sac, tmp_path):
    tiny_sac.save(tmp_path / "sac.zip")
    others = ["--oracle", tmp_path / "sac.zip", "--critic", tmp_path / "sac.zip"]
    words = [td3_folder / "td3.zip", *ENV, "--dataset", td3_folder / "data.hdf5", *FEW, *others, "--json"]
    code, out, _ = run(capsys, "measure", *words)
    found = json.loads(out)
    assert code == 0
    assert found["policy_error"]["oracle"] == "sac.zip"
    assert found["policy_error"]["train"]["mse"] > 0
    assert "counts entropy" in found["q_bias"]["labels"]["caveat"]  # TD3 has no draws to count


def test_track_follows_checkpoints(capsys, td3_folder, tiny_td3, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for step, scale in ((100, 0.0), (200, 0.5), (1000, 1.0)):
        with_scale(tiny_td3, scale, run_dir / f"rl_model_{step}_steps.zip")
    words = [run_dir, *ENV, "--dataset", td3_folder / "data.hdf5", "--episodes", 3]
    words += ["--oracle", td3_folder / "td3.zip"]
    code, out, _ = run(capsys, "track", *words, "--json", "--out", tmp_path / "track.json")
    found = json.loads(out)
    assert code == 0
    assert [row["step"] for row in found["checkpoints"]] == [100, 200, 1000]
    errors = [row["policy_error"]["train"]["mse"] for row in found["checkpoints"]]
    assert errors[0] > errors[1] > errors[2] == 0.0
    assert set(found["correlations"]) == {"train", "validation", "evaluation"}
    assert json.loads((tmp_path / "track.json").read_text(encoding="utf-8")) == found
    assert run(capsys, "report", tmp_path / "track.json")[0] == 0
    html = (tmp_path / "track.html").read_text(encoding="utf-8")
    assert "Over 3 checkpoints, " in html
    assert html.count("<svg") == 2
    code, out, _ = run(capsys, "track", *words)
    assert code == 0
    assert "correlation with the return" in out


def with_scale(model, scale, path):
    """The agent with its last layer scaled, as an earlier checkpoint."""
    import torch as th

    weights = {name: value.clone() for name, value in model.policy.state_dict().items()}
    try:
        with th.no_grad():
            for name, value in model.policy.state_dict().items():
                if name.startswith("actor.mu.4"):
                    value.mul_(scale)
        model.save(path)
    finally:
        model.policy.load_state_dict(weights)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["measure", "AGENT", "--env", "Pendulum-v3"], "did you mean Pendulum-v1"),
        (["measure", "AGENT", *ENV, "--dataset", "nowhere.hdf5"], "`--dataset` must be an existing"),
        (["measure", "AGENT", *ENV, "--dataset", "OTHER"], "must hold observations of"),
        (["measure", "AGENT", *ENV, "--oracle", "nowhere.zip"], "nowhere.zip"),
        (["measure", "AGENT", *ENV, "--critic", "PPO"], "V(s) only"),
        (["measure", "AGENT", *ENV, "--resume"], "`--resume` needs the folder"),
        (["measure", "AGENT", *ENV, "--episodes", "0"], "`--episodes` must be >= 1"),
        (["measure", "AGENT", *ENV, "--hold", "0"], "`--hold` must be >= 1"),
        (["measure", "AGENT", *ENV, "--perturbation", "0"], "`--perturbation` must be > 0"),
        (["collect", "AGENT", *ENV, "--steps", "many", "--out", "x"], "`--steps` must be a number of steps"),
        (["collect", "AGENT", *ENV, "--steps", "5", "--noise", "a", "--out", "x"], "`--noise` must be numbers"),
        (["collect", "AGENT", *ENV, "--steps", "5", "--noise", "-1", "--out", "x"], "`--noise` must be >= 0"),
        (["collect", "AGENT", *ENV, "--steps", "5"], "the following arguments are required: --out"),
        (["track", ".", *ENV, "--dataset", "."], "`RUN_DIR` must hold two or more checkpoints"),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch, td3_folder, tiny_ppo_pendulum, words, message):
    monkeypatch.chdir(tmp_path)
    tiny_ppo_pendulum.save("PPO.zip")
    if "OTHER" in words:
        assert main(["collect", "random", "--env", "CartPole-v1", "--steps", "20", "--out", "OTHER.hdf5"]) == 0
    names = {"AGENT": td3_folder / "td3.zip", "OTHER": "OTHER.hdf5", "PPO": "PPO.zip"}
    if words[0] == "track":
        (tmp_path / "PPO.zip").unlink()
    capsys.readouterr()
    code, out, err = run(capsys, *[names.get(word, word) for word in words])
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
