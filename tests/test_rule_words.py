"""Rules as words on the command line."""

import json

import pytest

from offline_eval import critic_of
from offline_eval.cli import main
from offline_eval.cli.rule_words import RULES, describe_rules, make_rule, split_rule
from offline_eval.errors import InputError
from offline_eval.policies import actor_of
from offline_eval.provenance import recipe
from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    Drawn,
    GaussianProposal,
    Guarded,
    KLAnchor,
    LastLayer,
    LineSearch,
    LowerBound,
    Mean,
    MultiplyAction,
    Never,
    OneHot,
    Placebo,
    RandomDirection,
    Replay,
    SoftSteer,
    TestTimeTraining,
)

WORDS = {
    "opex:0.2": lambda actor, critic: OPEX(critic, 0.2, direction=L2()),
    "opex:0.2,num_steps=3,reduce=mean,keep_best=true": lambda actor, critic: OPEX(
        critic, 0.2, num_steps=3, direction=L2(), reduce=Mean(), keep_best=True
    ),
    "opex:0.1, max_distance=0.3": lambda actor, critic: OPEX(critic, 0.1, direction=L2(), max_distance=0.3),
    "best_of:32,std=0.5": lambda actor, critic: BestOfN(critic, 32, GaussianProposal(0.5)),
    "best_of:4,reduce=lower_bound,coef=2": lambda actor, critic: BestOfN(critic, 4, reduce=LowerBound(2.0)),
    "ttt:3e-4": lambda actor, critic: TestTimeTraining(actor, critic, 3e-4),
    "ttt:1e-3,reset=never,states=replay,capacity=99": lambda actor, critic: TestTimeTraining(
        actor, critic, 1e-3, reset=Never(), states=Replay(capacity=99)
    ),
    "ttt:1e-3,anchor=kl:0.1,parameters=last_layer": lambda actor, critic: TestTimeTraining(
        actor, critic, 1e-3, anchor=KLAnchor(0.1), parameters=LastLayer()
    ),
    "multiply:1.1": lambda actor, critic: MultiplyAction(1.1),
    "random:0.4": lambda actor, critic: RandomDirection(0.4),
    "placebo:1e-6": lambda actor, critic: Placebo(1e-6),
    "opex:0.8,guard=line_search": lambda actor, critic: Guarded(OPEX(critic, 0.8, direction=L2()), LineSearch()),
}


@pytest.mark.parametrize("text", WORDS)
def test_words_are_the_rule_that_python_makes(text, tiny_td3):
    actor, critic = actor_of(tiny_td3), critic_of(tiny_td3)
    assert recipe(make_rule(text, critic, actor)) == recipe(WORDS[text](actor, critic))


def test_discrete_actions_are_steered_softly(tiny_dqn):
    rule = make_rule("soft:0.5,prior=one_hot:0.1,choose=drawn", critic_of(tiny_dqn))
    assert recipe(rule) == recipe(SoftSteer(critic_of(tiny_dqn), 0.5, OneHot(0.1), Drawn()))


def test_a_rule_of_words_is_the_flag_that_it_stands_for(sac_file, capsys):
    words = ["--env", "Pendulum-v1", "--episodes", "2", "--step-limit", "10", "--trap-episodes", "0", "--json"]
    main(["steer", str(sac_file), *words, "--step-sizes", "0.2", "--best-of", "4", "--proposal-std", "0.5"])
    flags = json.loads(capsys.readouterr().out)["rows"]
    main(["steer", str(sac_file), *words, "--rule", "opex:0.2", "--rule", "best_of:4,std=0.5"])
    rules = json.loads(capsys.readouterr().out)["rows"]
    assert [row["recipe"] for row in rules] == [row["recipe"] for row in flags]
    assert [row["summary"]["mean"] for row in rules] == [row["summary"]["mean"] for row in flags]
    assert [row["rule"] for row in rules][:4] == ["plain", "opex:0.2", "random as opex:0.2", "best_of:4,std=0.5"]


def test_a_rule_is_refused_before_anything_is_opened(tmp_path, capsys):
    (tmp_path / "a.zip").write_bytes(b"no zip")
    assert main(["steer", str(tmp_path / "a.zip"), "--env", "Pendulum-v1", "--rule", "opx:1"]) == 2
    assert "did you mean opex?" in capsys.readouterr().err


def test_the_rules_are_listed(capsys):
    with pytest.raises(SystemExit) as left:
        main(["steer", "--rules"])
    assert left.value.code == 0
    assert "best_of:NUM_SAMPLES" in capsys.readouterr().out


def test_a_value_with_a_comma_is_quoted():
    assert split_rule('opex:1,"note=a,b"') == ("opex", {"step_size": "1", "note": "a,b"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must begin with the word of a rule"),
        ("opx:0.2", "did you mean opex?"),
        ("opex:0.2,std", "written name=value"),
        ("opex:0.2,num_steps=1.5", "num_steps a whole number"),
        ("opex:0.2,num_steps=1,num_steps=2", "must give num_steps once"),
        ("opex:much", "step_size a number"),
        ("opex", "must give step_size"),
        ("opex:0.2,direction=up", "direction among raw, l2, sign"),
        ("opex:0.2,std=1", "must name a field of the rule"),
        ("opex:0.2,guard=dog", "guard among keep_best"),
        ("opex:1,guard=trust_radius", "must give trust_radius a number after a colon"),
        ("opex:1,direction=l2:3", "must give l2 no number"),
        ("opex:-1", "finite number >= 0"),
        ("multiply:1.1,guard=keep_best", "must name a field of the rule"),
        ("best_of:2,std=-1", "must be"),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line(text, says, tiny_td3):
    with pytest.raises(InputError, match=says) as error:
        make_rule(text, critic_of(tiny_td3))
    assert "\n" not in str(error.value)


def test_a_rule_says_what_it_lacks():
    with pytest.raises(InputError, match="needs an agent with a critic"):
        make_rule("opex:0.2", None)


def test_every_rule_is_listed_with_its_fields():
    text = describe_rules()
    assert all(f"{word}:" in text for word in RULES)
    assert "    direction=l2 (raw, l2, sign)" in text
    assert "    num_steps=1" in text
    assert "    std=0.2" in text
