"""A diagnosis made up for the tests of the report: nine rungs of known gain above a real measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from offline_eval.diagnosis.records import Ladder, Recommendation, Rung, Share, Trial, Verdict
from offline_eval.stats import Interval, paired_difference

RANGE = 500.0
GAINS = {
    "control": ("random pick of the data's actions", -400.0),
    "best_of_n": ("best of 25 by Q", 180.0),
    "opex": ("OPEX 0.2 by Q", 60.0),
    "inside": ("best of 25, inside the data only", 20.0),
    "outside": ("best of 25, outside the data only", 150.0),
    "truth": ("best of 9 by the truth, in the loop", 240.0),
}


def ladder() -> Ladder:
    """Rungs whose gains are those of `GAINS` to the last digit."""
    policy = 1000.0 + 10.0 * np.arange(20.0)
    rungs = [Rung("behaviour", "the data", policy - 300.0), Rung("policy", "the policy", policy)]
    for name, (title, gain) in GAINS.items():
        wobble = np.tile([-40.0, 40.0], 10)
        paired = paired_difference(policy + gain + wobble, policy)
        share = Share(gain / RANGE, Interval(paired.ci95.low / RANGE, paired.ci95.high / RANGE, "t"))
        choice = {"step_size": 0.2} if name == "opex" else {}
        trials = (Trial({"step_size": 0.2}, 50.0, 10), Trial({"step_size": 0.8}, -90.0, 10)) if choice else ()
        rungs.append(
            Rung(name, title, policy + gain + wobble, paired, 0.01, gain=share, choice=choice, selection=trials)
        )
    return Ladder(
        tuple(rungs), RANGE, 12.0, best="best_of_n", missing={"awr": "left out of a quick run"}, num_selection=10
    )


def verdict() -> Verdict:
    """Generalisation, worth .3 of the range."""
    shares = {
        "value": Share(0.12, Interval(0.02, 0.22, "t")),
        "extraction": Share(0.04, Interval(-0.02, 0.10, "t")),
        "generalisation": Share(0.30, Interval(0.20, 0.40, "t")),
    }
    advice = Recommendation("steer with a step of 0.2", "offline-eval steer AGENT --env ID --step-sizes 0.2")
    evidence = ("best of 25 by Q gains +180 [161, 199]", "outside the data it gains +150, inside +20")
    sentence = "Generalisation holds this agent back: it is worth 0.30 [0.20, 0.40] of the ladder's range."
    return Verdict("generalisation", shares, evidence, advice, sentence)


def diagnosis_json() -> dict[str, Any]:
    """The object of `diagnose --json`."""
    measured = json.loads((Path(__file__).parent / "measurement_example.json").read_text())
    found = ladder()
    return {
        **measured,
        "verdict": verdict().to_json(),
        "ladder": found.to_json(),
        "ladder_range": found.about(),
    }
