import time

import numpy as np
import pytest
from scipy.stats import kendalltau

from offline_eval.diagnostics.q_rank import (
    action_rank,
    normal_bound,
    reliability_bound,
    window_kendall_tau,
    window_rank,
)
from offline_eval.diagnostics.returns import Drop, EpisodeRewards, Extend, NoTail, discounted_returns
from offline_eval.errors import InputError

GAMMA = 0.99


def generator(seed=0):
    return np.random.default_rng(seed)


def scipy_taus(q, truth, window):
    return np.array(
        [kendalltau(q[i : i + window], truth[i : i + window]).statistic for i in range(len(q) - window + 1)]
    )


def gait(noise=0.0, seed=0, num_episodes=20, num_steps=1000, extra_steps=2000):
    """A periodic gait: rewards 1 + .3 sin of period 20, with noise; a perfect critic's values in closed form."""
    draw = generator(seed)
    turn = 2 * np.pi / 20
    phases = np.random.default_rng(99).uniform(0, 2 * np.pi, num_episodes)
    steps = np.arange(num_steps + extra_steps)
    episodes, values = [], []
    for phase in phases:
        rewards = 1 + 0.3 * np.sin(turn * steps + phase) + noise * draw.standard_normal(len(steps))
        episodes.append(EpisodeRewards(rewards[:num_steps], False, continuation=rewards[num_steps:]))
        wave = np.exp(1j * (turn * steps[:num_steps] + phase)) / (1 - GAMMA * np.exp(1j * turn))
        values.append(1 / (1 - GAMMA) + 0.3 * wave.imag)
    return episodes, np.concatenate(values)


def labels_of(episodes, tail):
    if isinstance(tail, NoTail):
        with pytest.warns(UserWarning, match="clock"):
            return discounted_returns(episodes, GAMMA, tail)
    return discounted_returns(episodes, GAMMA, tail)


def test_taus_by_hand():
    # Windows of 3: (1,2,3) against (1,3,2) has pairs + + -; (2,3,3) against (3,2,5) has - + and a tie in q.
    taus = window_kendall_tau([1, 2, 3, 3], [1, 3, 2, 5], window=3)
    assert taus == pytest.approx([1 / 3, 0.0])


@pytest.mark.parametrize("window", [2, 3, 10, 37, 200])
def test_taus_equal_scipy_with_ties_nan_and_infinity(window):
    draw = generator(1)
    q, truth = draw.integers(0, 6, 500).astype(float), draw.integers(0, 4, 500).astype(float)
    q[50:65], truth[100:115] = 1.0, 2.0
    q[200], truth[310] = np.nan, np.nan
    q[[400, 401, 402]], truth[401] = (np.inf, np.inf, -np.inf), -np.inf
    expected = scipy_taus(q, truth, window)
    taus = window_kendall_tau(q, truth, window)
    assert np.array_equal(np.isnan(taus), np.isnan(expected))
    assert np.nanmax(np.abs(taus - expected)) < 1e-12
    assert np.isnan(taus).any()
    assert np.isfinite(taus).any()


def test_only_the_order_counts():
    draw = generator(2)
    q, truth = draw.normal(size=(2, 300))
    taus = window_kendall_tau(q, truth)
    assert np.array_equal(window_kendall_tau(np.exp(q), 3 * truth + 7), taus)
    assert np.array_equal(window_kendall_tau(q, -truth), -taus)
    assert np.array_equal(window_kendall_tau(truth, q), taus)
    assert np.array_equal(window_kendall_tau(q, q), np.ones(291))


def test_taus_are_a_thousand_times_faster_than_a_loop_of_scipy():
    # benchmarks/kendall_speed.py measures all windows; here 200 of them stand for the loop.
    q, truth = generator(3).normal(size=(2, 100_000))
    scipy_taus(q[:50], truth[:50], 10)
    start = time.perf_counter()
    scipy_taus(q[:209], truth[:209], 10)
    loop = (time.perf_counter() - start) / 200 * 99_991
    ours = []
    for _ in range(5):
        start = time.perf_counter()
        window_kendall_tau(q, truth)
        ours.append(time.perf_counter() - start)
    assert loop / min(ours) > 1000


@pytest.mark.parametrize(
    ("noise", "tail", "expected"),
    [
        (0.0, NoTail(), (0.81, 1.00, 0.72, 0.00)),
        (0.0, Extend(), (1.00, 1.00, 1.00, 1.00)),
        (0.3, NoTail(), (0.54, 0.63, 0.54, 0.05)),
        (0.3, Extend(), (0.64, 0.63, 0.65, 0.64)),
    ],
)
def test_a_perfect_critic_of_the_periodic_gait(noise, tail, expected):
    # All, steps 0-540, 541-900, the last 100: the last reads the clock where the limit cuts the labels.
    episodes, q = gait(noise)
    labels = labels_of(episodes, tail)
    taus = window_kendall_tau(q, labels.values)
    start, whole = labels.steps[:-9], labels.episodes[:-9] == labels.episodes[9:]
    parts = [(0, 1000), (0, 541), (541, 900), (900, 1000)]
    measured = [np.mean(taus[whole & (start >= low) & (start < high)]) for low, high in parts]
    assert measured == pytest.approx(expected, abs=0.035)


def test_dropping_the_tail_gives_what_extending_it_gives():
    episodes, q = gait()
    dropped, extended, truncated = (labels_of(episodes, tail) for tail in (Drop(), Extend(), NoTail()))
    rank = window_rank(q, dropped.values, dropped.episodes, generator())
    assert rank.tau.value == pytest.approx(1.0, abs=0.01)
    assert rank.num_windows == 20 * 991
    assert rank.num_used == 20 * (542 - 9)
    assert rank.num_nonfinite == 20 * (991 - 533)
    assert rank.num_constant == rank.num_short == 0
    assert abs(rank.clock) < 0.02
    assert window_rank(q, extended.values, extended.episodes, generator()).tau.value == 1.0
    # Labels that a limit cuts reward a critic that knows nothing but the time.
    assert window_rank(q, truncated.values, truncated.episodes, generator()).clock > 0.15


def test_the_ceiling_is_what_two_sets_of_labels_agree_on():
    (first, q), (second, _) = gait(0.3, seed=1), gait(0.3, seed=2)
    one, two = labels_of(first, Extend()), labels_of(second, Extend())
    rank = window_rank(q, one.values, one.episodes, generator(), second_truth=two.values)
    alone = window_rank(q, one.values, one.episodes, generator())
    assert alone.ceiling is None
    assert rank.ceiling.value == pytest.approx(0.48, abs=0.03)
    assert alone.tau.value == pytest.approx(0.64, abs=0.02)
    assert rank.tau.value > alone.tau.value + 0.05  # the mean of two sets is the better label
    same = window_rank(q, one.values, one.episodes, generator(), second_truth=one.values)
    assert same.ceiling.value == 1.0


def test_a_random_critic_has_tau_zero_within_the_interval():
    draw = generator(4)
    episodes, _ = gait(0.3, num_episodes=30)
    labels = labels_of(episodes, Extend())
    rank = window_rank(draw.normal(size=len(labels.values)), labels.values, labels.episodes, draw)
    assert 0.0 in rank.tau.ci95
    assert abs(rank.tau.value) < 0.02
    assert 0.0 in rank.shuffled.ci95


def test_a_smooth_random_critic_has_tau_zero_within_the_interval_too():
    # Neighbouring windows of two smooth signals agree by chance, all or none: whole episodes have to be resampled.
    covered = 0
    for seed in range(40):
        draw = generator(seed)
        q, truth = draw.normal(size=(2, 25, 60)).cumsum(axis=2).reshape(2, -1)
        rank = window_rank(q, truth, np.repeat(np.arange(25), 60), draw, num_shuffles=1)
        covered += 0.0 in rank.tau.ci95
    assert covered >= 34  # 95 % of 40 is 38, less three standard deviations


def test_shuffled_labels_have_tau_zero_where_the_critic_is_perfect():
    episodes, q = gait(num_episodes=5)
    labels = labels_of(episodes, Drop())
    rank = window_rank(q, labels.values, labels.episodes, generator())
    assert rank.tau.value > 0.99
    assert abs(rank.shuffled.value) < 0.02
    assert rank.shuffled.ci95.low < 0 < rank.shuffled.ci95.high


def test_windows_do_not_cross_episodes_and_are_counted():
    q = np.array([1, 2, 3, 1, 2, 3, 9, 9, 9, 9, 5, 6, np.nan, 8, 0, 1.0])
    truth = np.array([1, 2, 3, 3, 2, 1, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6.0])
    episodes = np.array([4] * 3 + [2] * 3 + [7] * 4 + [1] * 4 + [0] * 2)
    rank = window_rank(q, truth, episodes, generator(), window=3)
    assert rank.taus.tolist() == [1.0, -1.0]
    assert rank.tau.value == 0.0
    assert rank.num_windows == 6  # 1, 1, 2, 2 and none in the episode of two steps
    assert (rank.num_constant, rank.num_nonfinite, rank.num_short) == (2, 2, 1)
    assert rank.num_used == 2


def test_the_stride_counts_from_the_start_of_each_episode():
    q, episodes = generator(5).normal(size=25), np.repeat([0, 1], [12, 13])
    rank = window_rank(q, -q, episodes, generator(), stride=2)
    assert rank.num_windows == 2 + 2  # starts 0 and 2 of 0..2, 0 and 2 of 0..3
    assert rank.tau.value == -1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 11}, "choose a shorter window"),
        ({"window": 1}, "at least 2"),
        ({"stride": 0}, "`stride`"),
        ({"num_shuffles": 0}, "`num_shuffles`"),
        ({"q": np.ones(20)}, "`q` must vary"),
        ({"truth": np.zeros(20)}, "`truth` must vary"),
        ({"truth": np.full(20, np.nan)}, "no finite number"),
        ({"truth": np.tile([1.0, np.nan], 10)}, "`truth` must vary"),
        ({"truth": np.arange(20) * np.tile([1.0, np.nan], 10)}, "2 windows of 10, 2 with a value that is not finite"),
        ({"truth": np.arange(19.0)}, "one row for each of `q`"),
        ({"episodes": np.tile([0, 1], 10)}, "keep the rows of an episode together"),
        ({"q": np.ones((20, 1))}, "1 axes"),
    ],
)
def test_bad_trajectories_are_refused(change, message):
    arguments = {"q": np.arange(20.0), "truth": np.arange(20.0), "episodes": np.repeat([0, 1], 10), **change}
    with pytest.raises(InputError, match=message):
        window_rank(generator=generator(), **arguments)


def test_a_window_longer_than_the_values_is_refused():
    with pytest.raises(InputError, match="number of values"):
        window_kendall_tau([1, 2], [1, 2], window=3)


def actions(num_states=120, num_actions=8, num_rollouts=4, noise=0.0, seed=0):
    draw = generator(seed)
    value = draw.normal(size=(num_states, num_actions))
    return value, value[..., None] + noise * draw.normal(size=(num_states, num_actions, num_rollouts))


def test_action_rank_by_hand():
    q = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    truth = np.array([[[0.0, 2.0], [4.0, 2.0], [1.0, 3.0]], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])  # 1 3 2 and 1 2 3
    rank = action_rank(q, truth, [0, 1], generator())
    assert rank.taus == pytest.approx([1 / 3, -1.0])
    assert rank.tau.value == pytest.approx(-1 / 3)
    # Halves of the first state: (0, 4, 1) against (2, 2, 3) has a tie, + and -; those of the second agree.
    assert rank.ceiling.value == pytest.approx(0.5)
    assert rank.relative.value == pytest.approx(-1 / 3 / np.sqrt(2 / 3))
    assert rank.num_rollouts == 2


def test_a_perfect_critic_ranks_actions_as_the_truth_does():
    q, truth = actions()
    rank = action_rank(q, truth, np.arange(120), generator())
    assert rank.tau.value == rank.ceiling.value == rank.relative.value == 1.0
    assert abs(rank.shuffled.value) < 0.05


def test_noise_lowers_the_rank_of_a_perfect_critic_and_its_ceiling_tells():
    q, truth = actions(noise=1.5)
    rank = action_rank(q, truth, np.arange(120), generator())
    normal = action_rank(q, truth, np.arange(120), generator(), bound=normal_bound)
    assert 0.35 < rank.tau.value < 0.6
    assert rank.ceiling.value < rank.tau.value
    assert rank.relative.value == pytest.approx(0.87, abs=0.05)
    assert 1.0 in normal.relative.ci95


def test_the_bounds_by_hand():
    # A split-half tau of 1/3 is a correlation of sin 30 = 1/2; doubled labels have one of sqrt(2/3), a tau of .608.
    assert reliability_bound([0.0, 1 / 3, 1.0]) == pytest.approx([0.0, np.sqrt(0.5), 1.0])
    assert normal_bound([0.0, 1 / 3, 1.0]) == pytest.approx([0.0, 2 / np.pi * np.arcsin(np.sqrt(2 / 3)), 1.0])
    assert normal_bound(1 / 3) == pytest.approx(0.608, abs=0.001)


def test_a_random_critic_ranks_no_action():
    _, truth = actions()
    rank = action_rank(generator(9).normal(size=(120, 8)), truth, np.arange(120), generator())
    assert 0.0 in rank.tau.ci95
    assert 0.0 in rank.relative.ci95


def test_where_the_labels_are_noise_the_rank_is_silent():
    q, truth = actions(noise=20.0)
    rank = action_rank(q, truth, np.arange(120), generator())
    assert rank.ceiling.value < 0.2
    assert rank.relative is None


def test_one_rollout_has_no_ceiling():
    q, truth = actions(num_rollouts=1)
    rank = action_rank(q, truth, np.arange(120), generator())
    assert rank.tau.value == 1.0
    assert rank.ceiling is None
    assert rank.relative is None


def test_states_without_an_order_are_counted():
    q, truth = actions(num_states=4)
    q[0], truth[1], truth[2, 0, 0] = 1.0, 2.0, np.nan
    rank = action_rank(q, truth, np.arange(4), generator())
    assert (rank.num_states, rank.num_constant, rank.num_nonfinite, rank.num_used) == (4, 2, 1, 1)
    with pytest.raises(InputError, match="perturb the actions more"):
        action_rank(np.ones_like(q), truth, np.arange(4), generator())


def test_states_of_one_episode_count_as_one():
    q, truth = actions(noise=2.0)
    apart = action_rank(q, truth, np.arange(120), generator()).tau
    together = action_rank(q, truth, np.repeat(np.arange(3), 40), generator()).tau
    assert together.value == apart.value
    assert (together.num_clusters, apart.num_clusters) == (3, 120)


@pytest.mark.parametrize("shape", [(120, 7, 4), (119, 8, 4), (120, 8)])
def test_the_truth_must_rate_the_same_actions(shape):
    q, _ = actions()
    with pytest.raises(InputError, match="truth"):
        action_rank(q, np.zeros(shape), np.arange(120), generator())
