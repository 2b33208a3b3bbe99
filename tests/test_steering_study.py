"""The comparison study: scores by hand, costs by hand, pairs as they are written, and a study played in pieces."""

import json

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from steered import FunctionCritic, square
from test_tuning import Target

from offline_eval.cli import main
from offline_eval.errors import InputError
from offline_eval.report.study_tables import gain_cells, kept_cells, rule_cells, study_table
from offline_eval.steering.cost import Cost, CountingCritic, cost_of
from offline_eval.steering.pairs import Pair, halfway, parse_pair, read_pairs
from offline_eval.steering.scores import agent_range, best_control, kept, rules_of, score, tuned
from offline_eval.steering.study import PairResult, Played
from offline_eval.wrappers import L2, OPEX, BestOfN, Guarded, LineSearch, MultiplyAction

SPREAD = np.array([-1.0, 1.0, -1.0, 1.0])


def played(name, kind, selection, fresh, spread=1.0):
    tried = () if selection is None else tuple((100 + selection + spread * SPREAD).tolist())
    return Played(name, kind, tried, tuple((100 + fresh + spread * SPREAD[::-1] / 2).tolist()), Cost(1.0, 0.0, 0.5))


def result(name="a", candidates=((20.0, 10.0), (5.0, 30.0)), control=(1.0, 2.0), **pair):
    """Plain 100, chance 0; candidates and the control as gains on the selection and on the fresh episodes."""
    everything = [
        Played("plain", "plain", (100.0,) * 4, (100.0,) * 4, Cost(0, 0, 0)),
        *(played(f"OPEX 0.{n}", "candidate", *gains) for n, gains in enumerate(candidates, 1)),
        played("keep best", "guard", None, 3.0),
        played("times 1.1", "control", *control),
        played("chance", "chance", None, -100.0, 0.0),
    ]
    words = {"name": name, "tuning": False, "trap": False, "episodes": 4, "seed": 0}
    return PairResult(words | pair, None, tuple(everything))


def test_scores_by_hand():
    one = result()
    assert agent_range(one) == 100.0
    assert one.choice().winner == "OPEX 0.1"
    auto = score(one, "auto")
    assert auto.difference.mean_difference == 10.0
    assert auto.share == pytest.approx(0.1)
    # Differences 9.5, 10.5, 9.5, 10.5: deviation 1 / sqrt(3).
    assert auto.t == pytest.approx(10 / (1 / np.sqrt(3) / 2))
    assert not auto.harms
    assert score(one, "plain").difference.mean_difference == 0.0


def test_harm_needs_two_errors_and_a_hundredth_of_the_range():
    assert score(result(candidates=((0.0, -2.0),)), "OPEX 0.1").harms
    small = score(result(candidates=((0.0, -0.9),)), "OPEX 0.1")
    assert small.t < -2
    assert not small.harms
    noisy = result(candidates=())
    rows = (*noisy.played, played("OPEX 0.1", "candidate", 0.0, -5.0, spread=40.0))
    assert not score(PairResult(noisy.pair, None, rows), "OPEX 0.1").harms


def test_what_the_trial_kept_of_the_best_afterwards():
    row = kept(result())
    assert (row.winner, row.best, row.best_gain, row.has_gain) == ("OPEX 0.1", "OPEX 0.2", 30.0, True)
    assert row.share == pytest.approx(1 / 3)
    assert not row.met
    assert kept(result(candidates=((20.0, 16.0), (5.0, 30.0)))).met
    # A control does as well: there is no gain of steering's own, and losing nothing is enough.
    beaten = kept(result(candidates=((0.0, 1.0),), control=(0.0, 2.0)))
    assert not beaten.has_gain
    assert beaten.met
    # The lead over the control spreads by 1 around its mean: an error of 0.58.
    for gain, own in ((0.1, False), (1.0, True)):
        rows = list(result(candidates=((0.0, 0.0),)).played)
        rows[1] = Played(
            "OPEX 0.1", "candidate", (0.0,) * 4, tuple(np.array(rows[3].fresh) + SPREAD + gain), Cost(1, 1, 1)
        )
        assert kept(PairResult(result().pair, None, tuple(rows))).has_gain is own
    lost = kept(result(candidates=((20.0, -5.0),)))
    assert lost.lost == pytest.approx(0.05)
    assert not lost.met


def test_a_rule_is_tuned_on_some_agents_and_the_table_reports_it_on_others():
    some, other = result("tuning", tuning=True), result("reported", candidates=((5.0, 50.0), (9.0, -7.0)))
    assert tuned([some], "OPEX") == "OPEX 0.2"
    with pytest.raises(InputError, match="begin"):
        tuned([some], "TTT")
    assert best_control(some) == "times 1.1"
    assert rules_of([some, other]) == ["OPEX 0.1", "OPEX 0.2", "keep best", "times 1.1", "auto"]
    rows = {row[0]: row for row in rule_cells([other])}
    assert rows["OPEX 0.2"][-2:] == ("reported", "no")
    assert rows["OPEX 0.1"][-1] == "yes"
    assert rows["OPEX 0.1"][3] == "+50.0"
    trap = rule_cells([other, result("trap", candidates=((0.0, -9.0), (0.0, 0.0)), trap=True)])
    by_name = {row[0]: row for row in trap}
    assert by_name["OPEX 0.1"][3:5] == ("+20.5", "+50.0")
    assert by_name["OPEX 0.1"][-1] == "but for the trap"
    assert kept_cells([other])[1][0] == "reported"


def test_a_result_survives_as_plain_data():
    one = result()
    again = PairResult.of_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert again.choice() == one.choice()


def test_costs_by_hand():
    critic = CountingCritic(FunctionCritic(square))
    steps = [(np.full((3, 1), 0.5, np.float32), np.zeros((3, 1), np.float32))] * 4
    boxes = critic.observation_space, critic.action_space

    def rows(rule):
        cost = cost_of(rule, critic, steps, boxes)
        assert cost.milliseconds >= 0
        return cost.forward, cost.backward

    assert rows(None) == (0, 0)
    assert rows(OPEX(critic, 0.1)) == (1, 1)
    assert rows(OPEX(critic, 0.1, num_steps=10)) == (10, 10)
    assert rows(BestOfN(critic, 8)) == (8, 0)
    assert rows(MultiplyAction(1.1)) == (0, 0)
    forward, backward = rows(Guarded(OPEX(critic, 0.1, direction=L2()), LineSearch(8)))
    assert backward == 1
    assert 8 <= forward <= 10


def test_pairs_are_written_in_toml_json_or_words(tmp_path):
    toml, other = tmp_path / "pairs.toml", tmp_path / "pairs.json"
    toml.write_text('[[pair]]\nname = "x"\nagent = "a.zip"\nenv = "Pendulum-v1"\nweaken = "halfway"\n')
    other.write_text(json.dumps({"pair": [{"name": "x", "agent": "a.zip", "env": "Pendulum-v1", "weaken": "halfway"}]}))
    (pair,) = read_pairs(toml)
    assert read_pairs(other) == [pair]
    assert pair.agent == str(tmp_path / "a.zip")
    assert pair.to_json()["agent"] == "a.zip"
    words = parse_pair("folder/a.zip=Pendulum-v1,weaken=0.2,episodes=50,tuning=true")
    assert (words.weaken, words.episodes, words.tuning, words.agent) == (0.2, 50, True, "folder/a.zip")
    assert words.name == "a on Pendulum-v1 weakened 0.2"


@pytest.mark.parametrize(
    ("words", "argument"),
    [
        ({"weaken": -1.0}, "weaken"),
        ({"weaken": "a bit"}, "weaken"),
        ({"episodes": 1}, "episodes"),
        ({"episodes": 2000}, "episodes"),
        ({"env": ""}, "env"),
    ],
)
def test_a_wrong_word_is_refused(words, argument):
    with pytest.raises(InputError, match=argument):
        Pair(**{"name": "x", "agent": "a.zip", "env": "Pendulum-v1", **words})


def test_a_wrong_file_is_refused(tmp_path):
    path = tmp_path / "pairs.toml"
    for text, match in (("x = 1", "pair"), ("[[pair]]\nagents = 3", "agents"), ("[[", "TOML")):
        path.write_text(text)
        with pytest.raises(InputError, match=match):
            read_pairs(path)
    path.write_text('[[pair]]\nagent = "a.zip"\nenv = "Pendulum-v1"\n' * 2)
    with pytest.raises(InputError, match="unique"):
        read_pairs(path)


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """Untrained, on an environment of ten steps that a study can name."""
    if "Target-v0" not in gym.registry:
        gym.register("Target-v0", entry_point=Target)
    model = SAC("MlpPolicy", Target(), seed=0, policy_kwargs={"net_arch": [8]}, device="cpu")
    path = tmp_path_factory.mktemp("agents") / "agent.zip"
    model.save(path)
    return model, str(path)


def test_halfway_is_a_strength_that_lies_between_the_agent_and_chance(agent):
    assert 0.03 <= halfway(agent[0], "Target-v0") <= 0.8


def test_a_study_is_played_in_pieces_and_shows_what_is_done(agent, tmp_path, capsys):
    words = f"{agent[1]}=Target-v0,episodes=3,selection_episodes=3"
    command = ["study", "steering", f"{words},name=one,tuning=true", f"{words},name=two,weaken=0.3"]
    command += ["--out", str(tmp_path)]
    assert main([*command, "--only", "one"]) == 0
    first = capsys.readouterr().out
    assert "agents that tune" in first
    assert "agents that are reported" not in first
    manifest = (tmp_path / "one" / "manifest.json").read_text()
    assert main([*command, "--markdown"]) == 0
    table = capsys.readouterr().out
    assert (tmp_path / "one" / "manifest.json").read_text() == manifest
    assert "| two |" in table
    assert "| auto |" in table
    assert main([*command, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    names = {row["name"] for row in data["pairs"][0]["played"]}
    assert {
        "plain",
        "chance",
        "times 1.2",
        "OPEX 0.01",
        "OPEX 1",
        "line search 0.2",
        "TTT 0.0003",
        "keep best 0.4",
    } <= names
    assert {row["pair"] for row in data["scores"]} == {"one", "two"}


def test_an_interrupted_agent_goes_on_with_the_strength_that_was_found(agent, tmp_path, capsys, monkeypatch):
    words = f"{agent[1]}=Target-v0,episodes=2,selection_episodes=2,weaken=halfway,name=one"
    command = ["study", "steering", words, "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    whole = json.loads(capsys.readouterr().out)
    path, table = tmp_path / "one" / "manifest.json", tmp_path / "one" / "episodes.csv"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"finished": False}))
    table.write_text("\n".join(table.read_text().splitlines()[:30]) + "\n")
    monkeypatch.setattr("offline_eval.steering.pairs.halfway", None)
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["scores"] == whole["scores"]
    assert again["pairs"][0]["strength"] == whole["pairs"][0]["strength"] == manifest["options"]["strength"]
    assert main([*command[:2], words.replace("halfway", "0.2"), *command[3:]]) == 2
    assert "as it is now" in capsys.readouterr().err


def test_the_statistics_beside_an_agent_are_named_and_part_of_what_is_gone_on_with(agent, tmp_path, capsys):
    path, env, out = tmp_path / "agents" / "agent.zip", Target(), tmp_path / "out"
    path.parent.mkdir()
    agent[0].save(path)

    def keep_statistics(mean):
        normalised = VecNormalize(DummyVecEnv([Target]), norm_reward=False)
        normalised.obs_rms.mean = np.full(env.observation_space.shape, mean)
        normalised.save(path.with_name("agent.vecnormalize.pkl"))

    keep_statistics(1.0)
    command = ["study", "steering", f"{path}=Target-v0,episodes=2,selection_episodes=2,name=one", "--out", str(out)]
    assert main(command) == 0
    assert "note: one: observations are normalised by agent.vecnormalize.pkl" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert "agent.vecnormalize.pkl" in json.loads(capsys.readouterr().out)["pairs"][0]["notes"][0]
    keep_statistics(2.0)
    manifest = out / "one" / "manifest.json"
    for finished in (True, False):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": finished}))
        assert main(command) == 2
        assert "one" in capsys.readouterr().err
    keep_statistics(1.0)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": True}))
    assert main(command) == 0


def test_bad_input_is_one_line(agent, tmp_path, capsys):
    command = ["study", "steering", f"{agent[1]}=Target-v0,episodes=3", "--out", str(tmp_path)]
    assert main([*command, "--only", "three"]) == 2
    assert "--only" in capsys.readouterr().err
    assert main([*command, "--n-envs", "0"]) == 2
    assert "--n-envs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "is not the manifest of a run"),
        ('{"options": {}}', "must hold one as it is now"),
    ],
)
def test_a_folder_of_something_else_is_one_line(agent, tmp_path, capsys, text, message):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "manifest.json").write_text(text)
    assert main(["study", "steering", f"{agent[1]}=Target-v0,name=one", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_study_without_results_says_so():
    assert study_table([]) == "no pair is done yet"
    cells, _ = gain_cells([result("b", candidates=((1.0, 1.0),))])
    assert cells[0] == ("agent", "plain", "best trivial control", "OPEX 0.1", "auto")
    with pytest.raises(InputError, match="played"):
        result().of("OPEX 7")
