"""The page and the table of a diagnosis: the verdict on top, the waterfall added up by hand."""

from __future__ import annotations

import json
from copy import deepcopy
from html import unescape
from xml.etree.ElementTree import Element

import pytest
from diagnosed import GAINS, diagnosis_json

from offline_eval.report.diagnosis_chapter import SHORT, Step, diagnosis_chapter, waterfall_figure
from offline_eval.report.diagnosis_table import diagnosis_table
from offline_eval.report.page import page
from offline_eval.report.reading import Reading
from offline_eval.report.runs import RunResult
from offline_eval.stats import Interval


def run(**changes):
    found = json.loads(json.dumps({**deepcopy(diagnosis_json()), **changes}))
    return RunResult("here", found, {"agents": {"agent.zip": "abc"}, "env": "Here-v0"})


def bars(figure: Element) -> list[tuple[float, float]]:
    found = [part for part in figure.iter("rect") if part.get("class", "").startswith("bar")]
    return [(float(part.get("x")), float(part.get("width"))) for part in found]


def test_each_step_of_a_waterfall_begins_where_the_one_before_ended():
    steps = [
        Step("start", Reading(0.0), "", is_level=True),
        Step("up", Reading(0.5), ""),
        Step("down", Reading(-0.25), ""),
        Step("end", Reading(0.25), "", is_level=True),
    ]
    (start, _), (up, rise), (down, fall), (end, _) = bars(waterfall_figure(steps, "title", "axis"))
    assert up == pytest.approx(start + 1.5, abs=0.11)  # a level is a mark three units wide around its place
    assert fall == pytest.approx(rise / 2, abs=0.11)
    assert down == pytest.approx(up + rise / 2, abs=0.11)
    assert end + 1.5 == pytest.approx(up + rise / 2, abs=0.11)


def test_a_step_that_is_not_known_moves_nothing():
    steps = [Step("unknown", Reading(), "cannot tell"), Step("known", Reading(1.0, Interval(0.5, 1.5, "")), "")]
    (nothing, width), (known, _) = bars(waterfall_figure(steps, "title", "axis"))
    assert width == 3.0  # the least that can be seen
    assert known == pytest.approx(nothing)


def test_the_verdict_stands_on_top_and_the_ladder_right_below():
    chapter = diagnosis_chapter(run())
    assert chapter.finding.startswith("Generalisation holds this agent back")
    assert [number.name for number in chapter.numbers] == [
        "worth of extraction",
        "worth of generalisation",
        "worth of value",
    ]
    assert [section.title for section in chapter.sections][:3] == ["Where the return is lost", "Why", "What to do next"]
    worth, ladder = chapter.sections[0].figures
    assert "Removing generalisation is worth 0.300 [0.200, 0.400] of the ladder's range, 500 of return" in worth.number
    assert "best by the truth (1335, +240" in ladder.number


def test_every_rung_is_drawn_and_what_was_not_played_is_named():
    text = unescape(page([run()]))
    for name, (title, _) in GAINS.items():
        assert SHORT.get(name, title) in text
    assert "awr: left out of a quick run" in text
    assert "offline-eval steer AGENT --env ID --step-sizes 0.2" in text


def test_a_share_that_cannot_be_told_is_said_so_and_not_drawn_as_zero():
    found = run()
    found.result["verdict"]["shares"] = {}
    chapter = diagnosis_chapter(found)
    assert chapter.numbers == []
    assert "Nothing of it could be told" in chapter.sections[0].figures[0].number
    assert "cannot tell" in diagnosis_table(found.result)


def test_the_table_fits_80_columns_and_holds_the_rungs():
    lines = diagnosis_table(run().result).splitlines()
    commands = [line for line in lines if line.startswith("    offline-eval")]
    assert max(len(line) for line in lines if line not in commands) <= 80
    (best,) = [line for line in lines if line.startswith("best of 25 by Q")]
    assert best.split()[5:7] == ["1275", "+180"]
    assert best.endswith("+0.360")


def test_a_name_from_outside_cannot_write_into_the_page():
    found = run()
    found.result["verdict"]["sentence"] = "<script>alert(1)</script>"
    assert "<script>" not in page([found])
