"""The page in a real browser: no complaints, nothing fetched, no sideways scrolling, by day and by night."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from diagnosed import diagnosis_json
from tracked import track_json

from offline_eval.report.page import write_page
from offline_eval.report.runs import RunResult

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")

LONG = "an-agent-whose-name-has-no-end-and-no-space-in-it-" * 3 + ".zip"

OUTSIDE = """[...document.querySelectorAll('svg text')].filter(t => {
  const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();
  return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
}).map(t => t.textContent)"""

OVERLAPPING = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  return texts.flatMap(([one, a], i) => texts.slice(i + 1).filter(([_, b]) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4
  ).map(([two, _]) => one + ' | ' + two));
})"""


@pytest.fixture(scope="module", params=["measurement_example.json", "measurement_hopper.json", "diagnosis", "track"])
def pages(tmp_path_factory, request):
    """Of an example made by hand, of a real measurement, and of a diagnosis and a training run made by hand.

    One run, and three side by side, the first with a name that is far too long.
    """
    folder = tmp_path_factory.mktemp("pages")
    if request.param == "diagnosis":
        result = diagnosis_json()
    elif request.param == "track":
        result = track_json()
    else:
        result = json.loads((Path(__file__).parent / request.param).read_text(encoding="utf-8"))
    run = RunResult("measured", result, {**result["manifest"], "command": LONG})
    skipped = RunResult("skipped", result | {"q_rank": {"skipped": "no critic"}, "q_bias": {"skipped": "no critic"}})
    long = RunResult(LONG, result, {"agent": LONG, "env": "Hopper-v5"})
    return write_page([run], folder / "one.html"), write_page([long, run, skipped], folder / "three.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 400, 1280])
def test_no_complaints_no_requests_no_sideways_scrolling(browser, pages, width, dark):
    for file in pages:
        browser.open(file, width, dark=dark)
        assert browser.complaints == []
        assert browser.requests == [file.resolve().as_uri()]
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value("getComputedStyle(document.querySelector('h1')).fontSize") != ""


def test_a_script_and_a_foreign_picture_are_stopped_and_reported(browser, pages, tmp_path):
    # What the two assertions above would see: without this, they could not fail.
    html = pages[0].read_text(encoding="utf-8")
    foreign = (
        "<script>document.title = 'run'</script><img src='http://localhost:9/x.png'><div style='width:3000px'>x</div>"
    )
    (tmp_path / "bad.html").write_text(html.replace("</main>", f"{foreign}</main>"), encoding="utf-8")
    browser.open(tmp_path / "bad.html", 400)
    assert len(browser.complaints) >= 2
    assert browser.value("document.title") != "run"
    assert browser.value("document.documentElement.scrollWidth") > 2000


def test_day_and_night_have_their_own_paper(browser, pages):
    colours = []
    for dark in (False, True):
        browser.open(pages[0], 800, dark=dark)
        colours.append(
            [
                browser.value(f"getComputedStyle(document.querySelector('{where}')).{what}")
                for where, what in (
                    ("body", "backgroundColor"),
                    ("svg text", "fill"),
                    (".bar.main, .mark.main", "fill"),
                )
            ]
        )
    assert colours[0] == ["rgb(252, 252, 250)", "rgb(86, 94, 104)", "rgb(0, 114, 178)"]
    assert colours[1] == ["rgb(20, 23, 26)", "rgb(166, 174, 183)", "rgb(86, 180, 233)"]


def test_paper_is_white_even_at_night(browser, pages):
    browser.open(pages[0], 800, dark=True, media="print")
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.value("getComputedStyle(document.querySelector('figure')).breakInside") == "avoid"


@pytest.mark.parametrize("width", [400, 1280])
def test_drawings_are_readable_and_their_labels_stay_in_their_frame_and_apart(browser, pages, width):
    browser.open(pages[0], width)
    smallest = browser.value(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => parseFloat(getComputedStyle(t).fontSize)"
        " * t.ownerSVGElement.getBoundingClientRect().width / 400))"
    )
    assert smallest > 8.5
    assert browser.value(OUTSIDE) == []
    assert browser.value(OVERLAPPING) == []


def test_labels_that_leave_their_frame_or_cover_another_are_found(browser, pages, tmp_path):
    # What the assertions above would see: without this, they could not fail.
    labels = "".join(f"<text x='{x}' y='50'>{words}</text>" for x, words in ((390, "far"), (10, "one"), (14, "two")))
    html = pages[0].read_text(encoding="utf-8")
    drawing = f"<svg viewBox='0 0 400 100'>{labels}</svg>"
    (tmp_path / "bad.html").write_text(html.replace("</main>", f"{drawing}</main>"), encoding="utf-8")
    browser.open(tmp_path / "bad.html", 1280)
    assert browser.value(OUTSIDE) == ["far"]
    assert browser.value(OVERLAPPING) == ["one | two"]
