"""The assertions' questions keep the false-alarm rate that they declare: `benchmarks/assertion_rates.py` in small."""

from __future__ import annotations

import math

import numpy as np
import pytest

from offline_eval.stats import mean_interval, wilson_interval
from offline_eval.stats.decisions import HOLDS, VIOLATED
from offline_eval.testing import questions

RUNS, EPISODES, ALPHA = 400, 250, 0.05
BOUNDS = (0.0, 3500.0)
FALLS = 3000 - 2500 * 0.15


def falls(generator, rate=0.15):
    fallen = generator.random((RUNS, EPISODES)) < rate
    noise = generator.uniform(-100, 100, (RUNS, EPISODES))
    return np.where(fallen, 500.0, 3000.0) + noise


def lognormal(generator):
    return generator.lognormal(0.0, 0.8, (RUNS, EPISODES))


def exponential(generator):
    return generator.exponential(1.0, (RUNS, EPISODES))


def beta(generator):
    return generator.beta(2.0, 5.0, (RUNS, EPISODES))


def columns(*draws):
    return lambda generator: np.stack([draw(generator) for draw in draws], axis=-1)


def biased(generator):
    truth = lognormal(generator)
    return np.stack([0.2 * truth * exponential(generator), truth], axis=-1)


def on_the_threshold():
    at_least, not_worse, helps = questions.return_at_least, questions.not_worse, questions.steering_helps
    margin, rarely = 250.0, lambda generator: falls(generator, 0.05)
    return {
        "return, bounded": (at_least(FALLS, BOUNDS, ALPHA), columns(falls)),
        "return, skewed": (at_least(FALLS, None, ALPHA), columns(falls)),
        "return, skewed to the right": (at_least(math.exp(0.32), None, ALPHA), columns(lognormal)),
        "not worse, bounded": (not_worse(margin, None, BOUNDS, ALPHA), columns(falls, rarely)),
        "not worse, skewed": (not_worse(margin, None, None, ALPHA), columns(falls, rarely)),
        "not worse, relative": (
            not_worse(None, 0.2, None, ALPHA),
            columns(lambda generator: 0.8 * lognormal(generator), lognormal),
        ),
        "steering, bounded": (helps(0.0, BOUNDS, ALPHA), columns(*[falls] * 6)),
        "steering, skewed": (helps(0.0, None, ALPHA), columns(*[lognormal] * 6)),
        "tau": (questions.kendall_tau(2 / 7, ALPHA), columns(beta)),
        "bias, skewed": (questions.q_bias(0.2, ALPHA), biased),
        "error, skewed": (questions.evaluation_mse(1.0, None, ALPHA), columns(exponential)),
        "error, bounded": (questions.evaluation_mse(2 / 7, (0.0, 1.0), ALPHA), columns(beta)),
        "coverage": (questions.covers(2 / 7, ALPHA), columns(beta)),
    }


@pytest.mark.parametrize("name", on_the_threshold())
def test_false_alarms_and_false_passes_are_no_more_frequent_than_declared(name):
    question, draw = on_the_threshold()[name]
    verdict = question.decide(draw(np.random.default_rng(1))).verdict
    for wrong in (VIOLATED, HOLDS):
        assert wilson_interval(int(np.sum(verdict == wrong)), RUNS).low <= ALPHA


def test_the_simulation_would_notice_a_test_that_does_not_keep_its_rate():
    # An interval for one look, looked at ten times, misses on either side far more often than 2.5 %.
    runs = falls(np.random.default_rng(1))
    looks = [[mean_interval(run[:size]) for size in range(25, EPISODES + 1, 25)] for run in runs[:100]]
    misses = sum(any(FALLS not in interval for interval in intervals) for intervals in looks)
    assert wilson_interval(misses, 100).low > 0.05


@pytest.mark.parametrize(("bounds", "std"), [(BOUNDS, 894.0), (None, 894.0)])
def test_half_a_standard_deviation_is_seen(bounds, std):
    runs = falls(np.random.default_rng(2))[..., None]
    worse = questions.return_at_least(FALLS + 0.5 * std, bounds, ALPHA).decide(runs)
    better = questions.return_at_least(FALLS - 0.5 * std, bounds, ALPHA).decide(runs)
    assert np.mean(worse.verdict == VIOLATED) > 0.99
    assert np.mean(better.verdict == HOLDS) > 0.99
    assert np.median(better.episodes) < 120
