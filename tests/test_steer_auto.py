"""`steer --step-sizes auto` and its table."""

import json

import numpy as np
import pytest
from stable_baselines3 import SAC
from steered import FunctionCritic, square
from test_tuning import Off, target

from offline_eval.cli import main
from offline_eval.episodes import EpisodePlan
from offline_eval.report.tuning_table import tuning_table, tuning_verdict
from offline_eval.run_folder import read_episodes
from offline_eval.steering.steering import Variant
from offline_eval.steering.tuning import tune_steering
from offline_eval.wrappers import L2, OPEX


def trial(offset=0.0, factor=1.0, critic=None):
    critic = critic or FunctionCritic(square)
    candidates = [Variant(f"OPEX {size:g}", OPEX(critic, size, direction=L2()), size) for size in (0.03, 0.4)]
    return tune_steering(Off(offset, factor), target, candidates=candidates, plan=EpisodePlan.seeded(20))


def test_the_table_names_the_winner_and_what_fresh_seeds_say():
    table = tuning_table(trial(offset=0.4), "off.zip")
    assert "off.zip on target: a trial on 10 episodes, seeds 1000 to 1009" in table
    assert "winner: the best, OPEX 0.4, has +160 (t = " in table
    assert "confirmed on fresh seeds: +160 [160, 160]" in table
    assert "20 episodes, seeds 0 to 19" in table
    assert "random as OPEX 0.4" in table
    lines = table.splitlines()
    assert lines.index("controls, which cannot win:") < next(n for n, line in enumerate(lines) if "times 1.1" in line)


def test_the_table_says_why_nothing_won():
    (line,) = tuning_verdict(trial(offset=0.4, critic=FunctionCritic(lambda o, a: -square(o, a))))
    assert line.startswith("no gain: the best, OPEX 0.03, has -")
    assert line.endswith("and a winner needs t > 2.26")
    first, second = tuning_verdict(trial(factor=1 / 1.1))
    assert first.startswith("no gain: ")
    assert "times 1.1 needs no critic and does as well" in first
    assert "needs more than 1" in second


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    model = SAC("MlpPolicy", "Pendulum-v1", seed=0, policy_kwargs={"net_arch": [8]}, device="cpu")
    path = tmp_path_factory.mktemp("agents") / "agent.zip"
    model.save(path)
    return str(path)


WORDS = "--env Pendulum-v1 --step-sizes auto --episodes 2 --selection-episodes 3 --step-limit 4 --seed 7 --workers 1"


def test_the_command_prints_the_trial_and_goes_on_after_an_interruption(agent, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["steer", agent, *WORDS.split(), "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    trial_rows = {row["rule"]: row for row in result["tuning"]["trial"]}
    assert trial_rows["plain"]["paired"] is None
    assert trial_rows["times 1.1"]["control"] is True
    assert trial_rows["OPEX 0.1"]["control"] is False
    kept = read_episodes(out)
    assert [episode.seed for episode in kept["selection: plain"]] == [9, 10, 11]
    np.testing.assert_array_equal([e.episode_return for e in kept["selection: plain"]], trial_rows["plain"]["returns"])

    table = out / "episodes.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:20]) + "\n")
    assert main(["steer", agent, *WORDS.split(), "--out", str(out), "--json", "--resume"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["tuning"] == result["tuning"]
    assert main(["steer", agent, *WORDS.split()]) == 0
    printed = capsys.readouterr().out
    assert "a trial on 3 episodes, seeds 9 to 11" in printed
    assert "no gain" in printed or "winner" in printed


def test_bad_input_is_one_line(agent, capsys):
    assert main(["steer", agent, *WORDS.split(), "--selection-episodes", "1"]) == 2
    assert "--selection-episodes" in capsys.readouterr().err
    for words in ("--log-states --out x", "--best-of 8", "--direction raw", "--controls placebo"):
        assert main(["steer", agent, *WORDS.split(), *words.split()]) == 2
        assert words.split()[0] in capsys.readouterr().err
