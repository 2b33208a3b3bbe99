"""The page of `track`: the error that goes with the return, and what picking by validation costs, both by hand."""

from __future__ import annotations

import json
import re
from html import unescape
from math import inf, nan

import pytest
from tracked import CORRELATIONS, ERRORS, FAILED, RETURNS, track_json

from offline_eval.cli import main
from offline_eval.diagnostics.policy_error import return_correlation
from offline_eval.errors import InputError
from offline_eval.report.page import page
from offline_eval.report.runs import RunResult
from offline_eval.report.track_chapter import track_chapter

NO_VALIDATION = {"skipped": "no trajectory is held out"}


def run(found=None):
    found = track_json() if found is None else found
    return RunResult("track", found, found["manifest"])


def text_of(*runs):
    return " ".join(unescape(re.sub(r"<(style|svg).*?</\1>|<[^>]+>", " ", page(runs), flags=re.DOTALL)).split())


def drawn(html):
    return re.findall(r"<svg.*?</svg>", html, re.DOTALL)


def test_the_correlations_of_the_example_are_those_of_its_numbers():
    means = [1.0, 5.0, 12.0, 8.0]
    found = {name: return_correlation(means, values) for name, values in ERRORS.items()}
    assert found == pytest.approx(CORRELATIONS)


def test_the_sentence_names_the_error_the_picked_step_and_its_cost():
    # Differences over the same seeds: 6, 4, 8, 10. Mean 7, standard error sqrt(20 / 3 / 4) = 1.291, Student's 3.182.
    assert track_chapter(run()).finding == (
        "Over 4 checkpoints, by Spearman's correlation the evaluation error (-1.00) and the training error (-0.80) go "
        "with the return, the validation error (-0.40) goes neither with the return nor against it, a hint and no more "
        "with so few of them; picking by the lowest validation error takes step 200, which returns 7.00 [2.89, 11.1]~ "
        "less than the best, step 300."
    )


def test_key_numbers_and_the_table_hold_them_too():
    chapter = track_chapter(run())
    numbers = {key.name: (key.reading.value, key.meaning) for key in chapter.numbers}
    assert numbers["return of the best checkpoint"] == (12.0, "step 300")
    assert numbers["return at the lowest validation error"] == (5.0, "step 200")
    assert numbers["cost of picking by validation"] == (7.0, "the best minus the picked one, over 4 shared episodes")
    assert numbers["correlation with the training error"][0] == -0.8
    table = chapter.sections[-1].table
    assert [(row.name, row.meaning) for row in table.rows] == [
        ("100", ""),
        ("200", "lowest validation error"),
        ("300", "best return"),
        ("400", ""),
    ]
    assert [[reading.value for reading in row.readings] for row in table.rows][1] == [5.0, 0.3, 0.1, 0.3]


def test_both_figures_show_every_checkpoint_over_the_same_axis():
    returns, errors = drawn(page([run()]))
    assert returns.count("<circle") == 4
    assert errors.count("<circle") == 12
    assert errors.count("<polyline") == 3
    places = [re.findall(r'<circle cx="([\d.]+)"[^>]*class="mark main"', figure) for figure in (returns, errors)]
    assert places[0] == places[1]
    assert "best return" in returns
    assert "lowest validation error" in returns


def test_a_cost_whose_interval_holds_0_is_not_told():
    # 12 against 10 on average; the differences -6, -6, 10, 10 have the mean 2 and the standard error 4.6.
    returns = [*RETURNS[:1], [16.0, 16.0, 4.0, 4.0], *RETURNS[2:]]
    finding = track_chapter(run(track_json(returns=returns))).finding
    assert "takes step 200; that the best, step 300, returns more (+2.00 [" in finding
    assert finding.endswith("cannot be told.")


def test_validation_may_pick_the_best():
    errors = ERRORS | {"validation": (0.5, 0.3, 0.1, 0.4)}
    chapter = track_chapter(run(track_json(errors=errors)))
    assert chapter.finding.endswith("picking by the lowest validation error takes the best of them, step 300.")
    assert "cost of picking by validation" not in [key.name for key in chapter.numbers]
    assert chapter.sections[-1].table.rows[2].meaning == "best return, lowest validation error"


def test_an_error_may_go_against_the_return():
    correlations = CORRELATIONS | {"train": 0.5}
    assert (
        "the training error (+0.50) goes against the return"
        in track_chapter(run(track_json(correlations=correlations))).finding
    )


def test_twenty_checkpoints_are_more_than_a_hint():
    def finding(number):
        errors = {name: [0.1 * (place + 1) for place in range(number)] for name in ERRORS}
        return track_chapter(run(track_json(range(number), [RETURNS[0]] * number, errors))).finding

    assert "a hint and no more" in finding(19)
    assert "a hint and no more" not in finding(20)


def test_a_skipped_set_is_said_and_not_drawn():
    errors = ERRORS | {"validation": (NO_VALIDATION,) * 4}
    found = track_json(errors=errors, correlations=CORRELATIONS | {"validation": NO_VALIDATION})
    words = text_of(run(found))
    assert words.count("Validation error: no trajectory is held out.") == 1
    assert "none can be picked by the validation error, which was not measured" in words
    assert "Correlation of the validation error" not in words
    assert "return of the best checkpoint step 300 12.0" in words
    _, drawing = drawn(page([run(found)]))
    assert drawing.count("<polyline") == 2
    assert "validation" not in drawing


def test_a_set_that_is_skipped_at_one_step_is_said_with_the_step():
    errors = ERRORS | {"validation": (0.5, NO_VALIDATION, 0.3, 0.4)}
    silent = {"skipped": "not at every checkpoint"}
    found = track_json(errors=errors, correlations=CORRELATIONS | {"validation": silent})
    words = text_of(run(found))
    assert "Validation error at step 200: no trajectory is held out." in words
    assert "Correlation of the validation error with the return: not at every checkpoint." in words
    assert "picking by the lowest validation error takes the best of them, step 300" in words


def test_without_any_error_there_is_no_figure_of_them():
    skipped = {"skipped": "no oracle"}
    found = track_json(errors=dict.fromkeys(ERRORS, (skipped,) * 4), correlations=dict.fromkeys(ERRORS, skipped))
    words = text_of(run(found))
    assert len(drawn(page([run(found)]))) == 1
    assert "whether an error goes with the return cannot be told (no oracle)" in words
    for name in ("Training", "Validation", "Evaluation"):
        assert f"{name} error: no oracle." in words
    assert "An error is said to go with the return" not in words


def test_two_checkpoints_say_nothing_of_a_correlation():
    errors = {name: values[:2] for name, values in ERRORS.items()}
    found = track_json((100, 200), RETURNS[:2], errors, dict.fromkeys(ERRORS, -1.0))
    assert "go with the return, which says nothing: of two checkpoints every correlation is 1 or -1;" in text_of(
        run(found)
    )
    assert [figure.count("<circle") for figure in drawn(page([run(found)]))] == [2, 6]


def test_a_failed_episode_leaves_the_pair_out():
    # Without the second seed the differences are 6, 8 and 10; the second might have been anything.
    returns = [RETURNS[0], [4.0, nan, 6.0, 4.0], *RETURNS[2:]]
    chapter = track_chapter(run(track_json(returns=returns)))
    cost = next(key for key in chapter.numbers if key.name == "cost of picking by validation")
    assert (cost.reading.value, cost.meaning) == (8.0, "the best minus the picked one, over 3 shared episodes")
    assert (cost.reading.low, cost.reading.high) == (-inf, inf)
    assert any(note.startswith("Episodes that failed do not count: 1 at step 200.") for note in chapter.notes)


def test_a_checkpoint_is_not_the_best_through_a_failure():
    returns = [[1.0, 1.0, 1.0, 1.0], [9.0, nan, 9.0, 9.0], [5.0, 5.0, 5.0, 6.0], [2.0, 2.0, 2.0, 2.0]]
    numbers = {key.name: key.meaning for key in track_chapter(run(track_json(returns=returns))).numbers}
    assert numbers["return of the best checkpoint"] == "step 300"
    returns = [[value, nan, value, value] for value in (1.0, 9.0, 5.0, 2.0)]
    words = text_of(run(track_json(returns=returns)))
    assert "which is the best cannot be told: episodes failed at every one of them." in words


def test_a_checkpoint_that_only_failed_is_said_and_not_drawn():
    reason = {"skipped": "`returns` must be finite"}
    found = track_json(returns=[RETURNS[0], FAILED, *RETURNS[2:]], correlations=dict.fromkeys(ERRORS, reason))
    html, words = page([run(found)]), text_of(run(found))
    assert "The return at step 200: every episode failed." in words
    assert "takes step 200; the best is step 300, and they share no episode without failure." in words
    assert [figure.count("<circle") for figure in drawn(html)] == [3, 12]
    assert not re.search(r'="[^"]*\b(nan|inf|None)\b[^"]*"', html)


def test_where_every_episode_failed_nothing_is_claimed():
    reason = {"skipped": "`returns` must be finite"}
    words = text_of(run(track_json(returns=[FAILED] * 4, correlations=dict.fromkeys(ERRORS, reason))))
    assert "every episode of all of them failed." in words
    assert "The return at step 100, 200, 300 and 400: every episode failed." in words


def test_runs_of_several_seeds_in_one_folder_are_noticed():
    assert "the folder holds more than one training run" in text_of(run(track_json(steps=(100, 200, 100, 200))))
    assert "the folder holds more than one training run" not in text_of(run())


def test_two_training_runs_stand_side_by_side():
    other = track_json()
    words = text_of(run(), RunResult("other", other, other["manifest"]))
    assert "Correlation with the training error" in words
    assert "track -0.800; other -0.800." in words


def test_a_name_from_outside_cannot_write_into_the_page():
    found = track_json()
    found["manifest"]["run"] = "<script>alert(1)</script>"
    assert "<script>" not in page([run(found)])


def test_a_broken_object_is_refused_in_one_line():
    found = track_json()
    del found["checkpoints"][0]["policy_error"]
    with pytest.raises(InputError, match="must be what --json of this version writes"):
        page([run(found)])


def test_the_file_of_track_becomes_a_page(tmp_path, capsys):
    (tmp_path / "track.json").write_text(json.dumps(track_json()), encoding="utf-8")
    assert main(["report", str(tmp_path / "track.json")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "track.html")
    assert "seed_0 on Here-v0, over its training" in (tmp_path / "track.html").read_text(encoding="utf-8")
