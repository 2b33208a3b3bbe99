"""The page: what it says of runs, numbers worked out by hand, and what strangers' names cannot do to it."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from html import unescape
from html.parser import HTMLParser
from math import inf, nan
from pathlib import Path

import pytest

from offline_eval.cli import main
from offline_eval.errors import InputError, StorageError
from offline_eval.report.axes import Scale, horizontal_axis
from offline_eval.report.curves import Histogram, Line, curve_figure
from offline_eval.report.figures import Row, bar, row_figure
from offline_eval.report.markup import render, tag
from offline_eval.report.page import page, write_page
from offline_eval.report.reading import Reading
from offline_eval.report.runs import RunResult, read_run, read_runs
from offline_eval.report.tables import number
from offline_eval.stats import Interval, paired_difference, summarize

MEASURED = json.loads((Path(__file__).parent / "measurement_example.json").read_text(encoding="utf-8"))
NASTY = "<script>alert('x')</script> & \"friends\" \udcff.zip"


def episodes(returns, first_seed=0):
    return [
        {"seed": first_seed + i, "return": value, "length": 9, "terminated": True, "truncated": False, "failed": False}
        for i, value in enumerate(returns)
    ]


def evaluated(name, returns, env="Here-v0", agent="agent.zip", first_seed=0, **manifest):
    summary = summarize(returns).to_json()
    result = {"env": env, "episodes": episodes(returns, first_seed), "summary": summary, "notes": []}
    return RunResult(name, result, {"agents": {agent: "abc"}, "env": env, **manifest})


def steered(plain, opex, control):
    def row(rule, returns, of=None, against=None):
        return {
            "rule": rule,
            "control": "random" if against is not None else None,
            "episodes": episodes(returns),
            "summary": summarize(returns).to_json(),
            "paired": None if of is None else paired_difference(returns, of).to_json(),
            "against_control": None if against is None else paired_difference(returns, against).to_json(),
            "notes": [],
        }

    rows = [row("plain", plain), row("OPEX", opex, plain, control), row("random", control, plain)]
    return RunResult("steered", {"env": "Here-v0", "rows": rows}, {"agents": {"agent.zip": "abc"}})


def measured(**changes):
    result = deepcopy(MEASURED) | changes
    return RunResult("measured", result, result["manifest"])


class Text(HTMLParser):
    """The words of a page, and the elements it has; strict about how they nest."""

    def __init__(self, html):
        super().__init__()
        self.words, self.elements, self.open = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "link"):
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, words):
        if self.open and self.open[-1] != "style":
            self.words.append(words)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def text_of(*runs):
    return Text(page(runs)).text


def test_a_scale_by_hand():
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert (scale(0.0), scale(5.0), scale(10.0), scale(99.0), scale(-inf)) == (100.0, 150.0, 200.0, 200.0, 100.0)
    assert scale.ticks(5) == [(0.0, "0"), (5.0, "5"), (10.0, "10")]
    assert scale.ticks(6) == [(0.0, "0"), (2.0, "2"), (4.0, "4"), (6.0, "6"), (8.0, "8"), (10.0, "10")]


def test_labels_of_an_axis_are_short_and_stay_inside():
    assert Scale(0.0, 2e6, 0.0, 1.0).ticks(2) == [(0.0, "0"), (2e6, "2e6")]
    assert Scale(-2e-5, 0.0, 0.0, 1.0).ticks(2) == [(-2e-5, "-2e-5"), (0.0, "0")]
    # "1000" is 28 wide: its middle must lie 14 from either end of the 400, its grid line where the value is.
    marks = horizontal_axis(Scale(1000.0, 2000.0, 5.0, 390.0), 0.0, 10.0, "steps")
    places = {mark.text: float(mark.get("x")) for mark in marks if mark.tag == "text"}
    assert (places["1000"], places["2000"]) == (14.0, 386.0)
    assert float(marks[0].get("x1")) == 5.0


def test_errors_that_are_all_zero_stand_on_an_axis_that_begins_there():
    assert Scale.over([0.0, 0.0], 0.0, 1.0, include=[0.0]).low == 0.0
    assert Scale.over([5.0, 5.0], 0.0, 1.0).low < 5.0


def test_what_rounds_to_nothing_has_no_sign():
    shown = [number(-0.0004), number(0.0004, signed=True), number(-0.0006), number(0.0)]
    assert shown == ["0.000", "0.000", "-0.001", "0"]
    assert Scale.over([1.0, 3.0, nan, inf], 0.0, 1.0, margin=0.5) == Scale(0.0, 4.0, 0.0, 1.0)
    assert Scale.over([1.0, 4.0], 0.0, 1.0, include=[0.0], margin=0.25) == Scale(0.0, 5.0, 0.0, 1.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.7, 12.1), (1060.0, 1140.0), (0.0, 3e-5), (-1e6, 2e7)])
def test_ticks_are_round_few_and_inside(low, high):
    ticks = Scale(low, high, 0.0, 1.0).ticks()
    assert 2 <= len(ticks) <= 6
    for value, words in ticks:
        assert low - 1e-9 <= value <= high * (1 + 1e-9)
        assert float(words) == pytest.approx(value)


def test_a_scale_of_one_value_or_none_has_room():
    assert Scale.over([7.0], 0.0, 1.0)(7.0) == pytest.approx(0.5)
    assert Scale.over([nan], 0.0, 1.0).ticks()


def test_text_is_escaped_wherever_it_stands():
    assert render(tag("p", "<b>&", class_='"x"')) == '<p class="&quot;x&quot;">&lt;b&gt;&amp;</p>'
    assert render(tag("p", "a", tag("b", "c"), "d", None, stroke_width=1.5, hidden=None)) == (
        '<p stroke-width="1.5">a<b>c</b>d</p>'
    )


def test_bars_are_as_long_as_their_numbers():
    rows = [Row("one", Reading(1.0)), Row("three", Reading(3.0))]
    drawn = render(row_figure(rows, "", "", draw=bar))
    one, three = (float(width) for width in re.findall(r'width="([\d.]+)" height="14"', drawn))
    assert three == pytest.approx(3 * one, rel=1e-3)


def test_an_infinite_interval_runs_out_of_the_figure_as_dots():
    figure = render(row_figure([Row("one", Reading(1.0, Interval(-inf, inf, "", "one value")))], "", ""))
    assert "range open main" in figure
    assert "[-inf, inf]~" in figure
    assert "nan" not in figure
    assert not re.search(r'="-?inf', figure)


def test_a_band_breaks_where_it_is_not_known():
    curve = {"positions": [0, 1, 2, 3], "values": [1, 1, 1, 1], "low": [0, None, 0, 0], "high": [2, 2, 2, None]}
    figure = render(curve_figure([Line.of("x", curve)], "", "", "", ""))
    assert figure.count("<polygon") == 2
    assert figure.count("<polyline") == 1


def test_shares_of_a_histogram():
    assert Histogram("x", [0, 1, 2], [3, 1]).shares == [0.75, 0.25]
    assert Histogram("x", [0, 1], [0]).shares == [0.0]


def test_the_page_of_an_evaluation_says_what_it_earned():
    words = text_of(evaluated("run", [1.0, 2.0, 3.0]))
    assert "agent.zip returns 2.00 [-0.484, 4.48]~ on average over 3 episodes of Here-v0." in words
    assert "~ may cover less than 95 %: 3 values: fewer than 30 can hide failures of 10%" in words


def test_every_episode_is_a_dot_and_failed_ones_are_counted():
    run = evaluated("run", [1.0, 2.0, nan, 3.0])
    run.result["episodes"][2] |= {"return": None, "failed": True, "error": "boom"}
    html = page([run])
    assert html.count('class="dot main"') == 3
    assert "1 of 4 episodes failed and do not count; the first: boom" in html


PLAIN = [float(i) for i in range(20)]


@pytest.mark.parametrize(
    ("opex", "control", "verdict"),
    [
        (5.0, 1.0, "OPEX: helps, and more than its best control, random"),
        (5.0, 5.0, "OPEX: gains, but no more than its best control, random: the critic has not earned it"),
        (-5.0, 1.0, "OPEX: harms"),
    ],
)
def test_steering_is_judged_beside_its_control(opex, control, verdict):
    wobble = [0.1 * (-1) ** i for i in range(20)]
    run = steered(PLAIN, [p + opex + w for p, w in zip(PLAIN, wobble, strict=True)], [p + control for p in PLAIN])
    words = text_of(run)
    assert f"On Here-v0, {verdict}." in words
    assert "OPEX minus plain 20" not in words
    assert "OPEX minus random" in words


def test_a_steered_page_shows_its_controls_as_squares():
    html = page([steered(PLAIN, [p + 1 for p in PLAIN], PLAIN)])
    assert re.search(r'<rect [^>]*class="mark control"', html)


def test_compared_agents_read_as_a_sentence():
    def row(agent, returns, paired):
        seeds = [{"episodes": episodes(returns), "notes": []}]
        return {"agent": agent, "summary": summarize(returns).to_json(), "training_seeds": seeds, "paired": paired}

    better = [p + 3.0 + 0.1 * (-1) ** i for i, p in enumerate(PLAIN)]
    rows = [row("a.zip", PLAIN, None), row("b.zip", better, paired_difference(better, PLAIN).to_json())]
    assert "b.zip returns 3.00 more than a.zip (+3.00 [2.95, 3.05]~)." in text_of(
        RunResult("run", {"env": "Here-v0", "rows": rows})
    )


def test_runs_with_shared_episodes_are_paired_and_others_are_not():
    runs = [
        evaluated("first", PLAIN),
        evaluated("half", [p - 2.0 + 0.01 * i for i, p in enumerate(PLAIN[:10])]),
        evaluated("elsewhere", PLAIN, env="There-v0"),
    ]
    words = text_of(*runs)
    assert "half returns 1.96 less than first" in words
    assert "half minus first 10 shared episodes" in words
    assert "elsewhere is not paired with first: another environment, or no shared episodes." in words
    assert "Mean return" in words


def test_runs_that_share_nothing_say_so():
    words = text_of(evaluated("first", PLAIN), evaluated("second", PLAIN, first_seed=100))
    assert "2 runs that share no episodes stand side by side" in words


def test_the_page_of_a_measurement_holds_its_numbers():
    words = text_of(measured())
    assert "On Hopper-v5, made up returns 1103 [1085, 1119]~, errs 1.90 times as much where it goes" in words
    assert (
        "its critic orders states with tau 0.635, orders actions with tau 0.633 "
        "and overstates returns with their entropy bonuses by 4.9 %." in words
    )
    for figure in (
        "Returns",
        "Error on three sets of states",
        "Error over the time step",
        "Order of states: Kendall's tau in windows of 10",
        "Order of actions at restored states",
        "Q against the truth",
        "Bias over the prediction",
        "Gain of the best candidate, as critics score it",
        "Gain of the best candidate at restored states",
        "Distance to the nearest training state",
        "Drift from the data over the time step",
    ):
        assert figure in words
    assert "shuffled labels -0.004 [-0.049, 0.024]" in words
    assert "ceiling 0.915 [0.896, 0.930]~" in words
    assert "Not measured" not in words


@pytest.mark.parametrize("section", ["performance", "policy_error", "q_rank", "q_bias", "regret", "coverage"])
def test_a_skipped_section_says_why(section):
    words = text_of(measured(**{section: {"skipped": "the sun was too hot"}}))
    assert "Not measured: the sun was too hot." in words


def test_a_page_on_which_nothing_was_measured():
    sections = ("performance", "policy_error", "q_rank", "q_bias", "regret", "coverage")
    words = text_of(measured(**{name: {"skipped": "no data"} for name in sections}))
    assert "Nothing could be measured of made up on Hopper-v5." in words
    assert words.count("Not measured:") == 6


def test_skipped_parts_of_a_section_say_why():
    run = measured()
    run.result["q_rank"]["action_rank"] = {"skipped": "the environment cannot be restored"}
    run.result["q_rank"]["ceiling"] = {"skipped": "one set of labels"}
    run.result["regret"]["truth"] = {"skipped": "the environment cannot be restored"}
    run.result["policy_error"]["validation"] = {"skipped": "no held-out trajectories"}
    words = text_of(run)
    assert "The order of actions: the environment cannot be restored." in words
    assert "The ceiling of tau: one set of labels." in words
    assert "Regret at restored states: the environment cannot be restored." in words
    assert "Validation error: no held-out trajectories." in words
    assert "tau of actions" not in words


def test_a_silent_action_rank_gives_its_reason():
    run = measured()
    run.result["q_rank"]["action_rank"] |= {"relative": None, "silence": "the ceiling is below 0.2"}
    words = text_of(run)
    assert "beside its ceiling: the ceiling is below 0.2." in words
    assert "tau of actions, relative" not in words


def test_numbers_that_are_not_known_leave_no_trace_in_the_drawing():
    run = measured()
    run.result["q_bias"] |= {"normalised": None}
    run.result["coverage"]["ratio"] = None
    run.result["policy_error"]["generalisation"] = None
    run.result["performance"]["summary"]["ci95"] = [None, None]
    run.result["performance"]["returns"][0] = None
    assert not re.search(r'="[^"]*\b(nan|inf|None)\b[^"]*"', page([run]))


def test_measured_runs_stand_under_one_another():
    other = measured()
    other.result["q_rank"]["window_tau"] = 0.1
    words = text_of(measured(), RunResult("other", other.result, other.manifest))
    assert "measured 0.635 [0.605, 0.669]~; other 0.100 [0.605, 0.669]~." in words


def test_strangers_names_are_text_and_nothing_else():
    runs = [evaluated(NASTY, PLAIN, agent=NASTY, env=NASTY, command=["run", NASTY]), evaluated("b", PLAIN, env=NASTY)]
    html = page(runs).encode(errors="xmlcharrefreplace").decode()
    assert "<script" not in html
    assert {name for name, _ in Text(html).elements}.isdisjoint({"script", "img", "iframe", "object", "a"})
    assert "<script>alert('x')</script> & \"friends\"" in unescape(html)


def test_the_page_asks_for_nothing():
    found = Text(page([measured()]))
    for name, attributes in found.elements:
        assert "src" not in attributes
        assert attributes.get("href", "data:,") == "data:,"
        assert not any(key.startswith("on") for key in attributes), name
    policy = next(a["content"] for _, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "url(" not in page([measured()])
    assert "@import" not in page([measured()])


def test_every_drawing_has_a_name_a_description_and_its_number_beside_it():
    html = page([measured()])
    elements = Text(html).elements
    count = {kind: sum(name == kind for name, _ in elements) for kind in ("svg", "figure", "desc")}
    assert count == {"svg": 11, "figure": 11, "desc": 11}
    assert sum(a.get("class") == "number" for _, a in elements) == 11
    assert all(a["role"] == "img" for name, a in elements if name == "svg")
    assert len(re.findall(r"<svg[^>]*><title>[^<]+</title><desc>[^<]{20,}</desc>", html)) == 11


def test_the_same_results_give_the_same_page(tmp_path):
    runs = [measured(), evaluated("b", PLAIN)]
    first = write_page(runs, tmp_path / "new" / "a.html").read_bytes()
    assert first == write_page(runs, tmp_path / "b.html").read_bytes()
    assert len(first) < 5e6


def test_how_it_was_made_stands_at_the_foot():
    run = evaluated(
        "run",
        PLAIN,
        plan=[[7, None], [9, None]],
        versions={"torch": "2.0"},
        command="offline-eval evaluate agent.zip",
        variants={"OPEX 0.2": {"name": "OPEX", "step_size": 0.2, "direction": {"name": "L2"}}},
        weights_hash={"plain": {"before": "a", "after": "b"}},
    )
    words = text_of(run)
    for line in (
        "command offline-eval evaluate agent.zip",
        "agent agent.zip weights abc",
        "episodes 2 with seeds 7 to 9",
        "versions torch 2.0",
        "variants OPEX 0.2: OPEX(step_size 0.2, direction L2)",
        "weights CHANGED during the run: plain",
    ):
        assert line in words


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a, b):
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_by_day_by_night_and_on_paper():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    css = re.search(r"<style>(.*?)</style>", page([measured()]), re.DOTALL)[1]
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    themes = [dict(re.findall(r"--(\w+): (#\w{3,6});", block)) for block in blocks]
    assert len(themes) == 3
    for theme in themes:
        colours = {name: c if len(c) == 7 else "#" + "".join(2 * digit for digit in c[1:]) for name, c in theme.items()}
        for paper in ("paper", "card"):
            assert contrast(colours["ink"], colours[paper]) > 12
            assert contrast(colours["soft"], colours[paper]) > 4.5
            for mark in ("main", "control", "second", "plain"):
                assert contrast(colours[mark], colours[paper]) > 3


def test_pages_of_run_folders(tmp_path, capsys, sac_file):
    play = ["--env", "Pendulum-v1", "--episodes", "3", "--workers", "1", "--step-limit", "20", "--json"]
    assert main(["evaluate", str(sac_file), *play, "--out", str(tmp_path / "one")]) == 0
    steered = ["--step-sizes", "0.2", "--trap-episodes", "0", "--controls", "random", "--out", str(tmp_path / "two")]
    assert main(["steer", str(sac_file), *play, *steered]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "one")]) == 0
    made = tmp_path / "one" / "report.html"
    assert capsys.readouterr().out.strip() == str(made)
    assert f"{sac_file.name} on Pendulum-v1" in made.read_text()
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "both.html")]) == 0
    assert "two minus one 3 shared episodes" in Text((tmp_path / "both.html").read_text()).text
    alone = made.read_text()
    capsys.readouterr()
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "one-two.html")
    assert made.read_text() == alone  # the page of several runs is none of theirs


def test_a_run_that_was_stopped_shows_what_it_has(tmp_path):
    header = "variant,index,seed,return,length,terminated,truncated,success,failed,steering\n"
    rows = "plain,0,0,1.0,9,1,0,,,\nplain,1,1,2.0,9,1,0,,,\nOPEX,1,1,5.0,9,1,0,,,\n"
    (tmp_path / "episodes.csv").write_text(header + rows)
    manifest = {"env": "Here-v0", "plan": [[0, None], [1, None]], "variants": {"plain": None, "OPEX": None}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"finished": False}))
    words = text_of(read_run(tmp_path))
    assert "The run was stopped after 3 of 4 episodes" in words
    assert "OPEX minus plain" in words
    assert "+3.00" in words


def test_a_stopped_run_pairs_the_same_seeds_and_nothing_else(tmp_path):
    header = "variant,index,seed,return,length,terminated,truncated,success,failed,steering\n"
    rows = "policy,0,0,1.0,9,1,0,,,\npolicy,1,1,2.0,9,1,0,,,\n"
    rows += "opex,0,0,4.0,9,1,0,,,\nopex,1,1,5.0,9,1,0,,,\n"
    rows += "selection opex,0,1000000,9.0,9,1,0,,,\nselection opex,1,1000001,9.0,9,1,0,,,\n"
    (tmp_path / "episodes.csv").write_text(header + rows)
    manifest = {"env": "Here-v0", "plan": [[0, None], [1, None]], "variants": {"policy": None}, "finished": False}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    run = read_run(tmp_path)
    paired = {row["rule"]: row["paired"] for row in run.result["rows"]}
    assert paired["opex"]["mean_difference"] == 3.0
    assert "selection opex" not in paired
    words = text_of(run)
    assert "opex minus policy" in words
    assert "stopped after 4 episodes" in words  # its manifest names the policy alone


def test_runs_of_one_name_are_told_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.json").write_text(json.dumps(MEASURED))
    paths = [tmp_path / "a" / "x.json", tmp_path / "b" / "x.json"]
    assert [run.name for run in read_runs(paths)] == [str(path) for path in paths]
    with pytest.raises(InputError, match="must be different runs"):
        read_runs([paths[0], paths[0]])


def test_what_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "`RUN` must be an existing file or folder: a run folder, or what --json printed" in capsys.readouterr().err
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(StorageError, match=r"broken\.json cannot be read"):
        read_run(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match="must hold a JSON object"):
        read_run(tmp_path / "list.json")
    with pytest.raises(InputError, match="must be the object of `evaluate`"):
        page([RunResult("x", {"a": 1})])
    with pytest.raises(InputError, match="KeyError"):
        page([RunResult("x", {"policy_error": {}, "performance": {}})])
    with pytest.raises(InputError, match="at least one run"):
        page([])


def test_a_page_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="the page cannot be written"):
        write_page([measured()], tmp_path / "file" / "page.html")


def test_a_measurement_in_a_run_folder_reads_as_its_json(tmp_path):
    # The folder's manifest keeps notes and hashes by variant, that of the object for the one policy.
    outer = {"env": "Hopper-v5", "agents": {"made up": "abc"}, "notes": {"plain": []}, "result": MEASURED}
    outer["weights_hash"] = {"plain": {"before": "abc", "after": "abc"}}
    (tmp_path / "manifest.json").write_text(json.dumps(outer))
    words = text_of(read_run(tmp_path))
    assert "Notes made up by hand." in words
    assert "weights unchanged by the run" in words
    assert "dataset data.hdf5" in words
    inner = MEASURED["manifest"] | {"weights_hash": {"before": "abc", "after": "xyz"}}
    run = RunResult("measured", MEASURED | {"manifest": inner}, inner)
    assert "weights CHANGED during the run: the policy (abc)" in text_of(run)


@pytest.mark.parametrize(
    ("section", "key", "ends", "words"),
    [
        (
            "q_rank",
            None,
            [-0.7, 0.7],
            "its critic cannot be told from chance in ordering states (tau 0.635 [-0.700, 0.700]~)",
        ),
        ("q_rank", None, [-0.9, -0.7], "orders states the wrong way round"),
        ("coverage", "share_outside", [0.0, 0.2], "which cannot be told from the 1 % of the data's own policy"),
        ("q_bias", "normalised", [-0.1, 0.2], "shows no bias that can be told"),
        ("policy_error", "generalisation", [0.9, 2.0], "errs as much where it goes as where it was trained, as far as"),
    ],
)
def test_the_sentence_claims_no_more_than_the_intervals(section, key, ends, words):
    run = measured()
    (run.result[section] if key is None else run.result[section][key])["ci95"] = ends
    assert words in text_of(run)
