import numpy as np
import pytest
from scipy.spatial import cKDTree

from offline_eval.diagnostics.coverage import States, Support, coverage
from offline_eval.errors import InputError


def generator(seed=0):
    return np.random.default_rng(seed)


def states(observations, num_episodes=20):
    observations = np.asarray(observations, dtype=float)
    steps = len(observations) // num_episodes
    return States(observations, np.arange(len(observations)) // steps, np.arange(len(observations)) % steps)


def cloud(num_states=2000, shift=0.0, seed=0, dimensions=5):
    return shift + generator(seed).normal(size=(num_states, dimensions))


def test_distances_by_hand():
    # Mean 2, standard deviation 2; the second dimension never moves and counts in its own units.
    support = Support([[0, 7], [4, 7]], states([[1, 7], [3, 7]], num_episodes=2), generator())
    assert support.distances([[0, 7], [1, 7], [2, 7], [4, 8], [10, 7]]) == pytest.approx([0, 0.5, 1, 1, 3], abs=1e-6)
    assert support.threshold == pytest.approx(0.5)
    assert support.outside([[0.5, 7], [2, 7]]).tolist() == [False, True]


def test_distances_equal_a_tree_s():
    training, queries = cloud(7000), cloud(900, seed=1, shift=0.5)
    distances = Support(training, states(cloud(20, seed=2)), generator()).distances(queries)
    tree = cKDTree(training / training.std(axis=0))
    assert distances == pytest.approx(tree.query(queries / training.std(axis=0))[0], abs=1e-4)


def test_dimensions_of_any_scale_and_place_count_alike():
    scale, place = np.array([1e-3, 1.0, 1e4, 1.0, 1.0]), np.array([0, 1e3, -1e6, 0, 5.0])
    training, held_out, queries = cloud(), cloud(200, seed=1), cloud(50, seed=2)
    plain = Support(training, states(held_out), generator())
    moved = Support(training * scale + place, states(held_out * scale + place), generator())
    assert moved.distances(queries * scale + place) == pytest.approx(plain.distances(queries), rel=1e-3)


def test_a_training_state_is_at_no_distance():
    training = cloud(5000, dimensions=17)
    support = Support(training, states(cloud(20, seed=1, dimensions=17)), generator())
    assert support.distances(training).max() < 0.005


def test_a_policy_that_stays_in_the_data_looks_like_validation():
    support = Support(cloud(), states(cloud(1000, seed=1)), generator())
    result = coverage(support, states(cloud(1000, seed=2)), generator())
    assert 1.0 in result.ratio.ci95
    assert 0.01 in result.share_outside.ci95
    assert len(result.visited_distances) == len(result.validation_distances) == 1000
    assert result.threshold == pytest.approx(np.quantile(result.validation_distances, 0.99))


def test_a_policy_elsewhere_is_outside():
    support = Support(cloud(), states(cloud(1000, seed=1)), generator())
    result = coverage(support, states(cloud(1000, shift=5.0, seed=2)), generator())
    assert result.ratio.ci95.low > 3.0
    assert result.share_outside.value > 0.99


def test_half_outside_by_episodes():
    visited = np.where(np.arange(1000)[:, None] < 500, cloud(1000, seed=2), cloud(1000, shift=9.0, seed=2))
    result = coverage(Support(cloud(), states(cloud(1000, seed=1)), generator()), states(visited), generator())
    assert result.share_outside.value == pytest.approx(0.5, abs=0.02)
    assert result.share_outside.ci95.low < 0.3  # ten episodes of twenty, not 500 states of 1000


def test_drift_is_seen_over_the_time_step():
    drift = np.tile(np.linspace(0, 8, 50), 20)[:, None]
    visited = states(cloud(1000, seed=2) + drift)
    curve = coverage(Support(cloud(), states(cloud(400, seed=1)), generator()), visited, generator(), num_bins=5).drift
    assert (np.diff(curve.values) > 0).all()
    assert curve.values[-1] > 5 * curve.values[0]
    assert curve.counts.tolist() == [200] * 5


def test_larger_sets_are_sampled_and_say_so():
    def measure(seed):
        support = Support(cloud(), states(cloud(1000, seed=1)), generator(seed), max_training=500, max_queries=100)
        return coverage(support, states(cloud(1000, seed=2)), generator(seed), max_queries=200)

    result = measure(0)
    assert (result.num_training, result.num_training_used) == (2000, 500)
    assert (result.num_visited, len(result.visited_distances), len(result.validation_distances)) == (1000, 200, 100)
    assert np.array_equal(measure(0).visited_distances, result.visited_distances)
    assert not np.array_equal(measure(1).visited_distances, result.visited_distances)


def test_a_sample_keeps_rows_together():
    given = states(np.arange(100.0)[:, None])
    drawn = given.sample(10, generator())
    assert len(np.unique(drawn.observations)) == 10
    assert np.array_equal(drawn.episodes * 5 + drawn.steps, drawn.observations[:, 0])
    assert given.sample(100, generator()) is given


def test_states_that_repeat_exactly_leave_no_ratio():
    grid = np.repeat(np.eye(3), 20, axis=0)
    result = coverage(Support(grid, states(grid), generator()), states(grid), generator())
    assert result.ratio is None
    assert result.threshold == result.share_outside.value == 0.0


def test_observations_of_any_shape_are_flattened():
    pictures = generator().normal(size=(40, 2, 3, 1))
    support = Support(pictures, States(pictures[:5] + 0.1, np.arange(5), np.zeros(5)), generator())
    assert support.distances(pictures[:7]) == pytest.approx(np.zeros(7), abs=1e-2)


def test_nan_is_named_by_index():
    bad = cloud(10)
    bad[3, 1] = np.nan
    with pytest.raises(InputError, match=r"`observations` must be finite\. Received nan at index \(3, 1\)"):
        states(bad, num_episodes=2)
    with pytest.raises(InputError, match=r"`training` must be finite\. Received nan at index \(3, 1\)"):
        Support(bad, states(cloud(10), num_episodes=2), generator())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Support(cloud(dimensions=4), states(cloud(20)), generator()), "`validation` must have"),
        (lambda: Support(cloud(), states(cloud(20)), generator(), quantile=99), "`quantile`"),
        (lambda: Support(cloud(), states(cloud(20)), generator(), max_training=0), "`max_training`"),
        (lambda: Support(cloud(0), states(cloud(20)), generator()), "must not be empty"),
        (lambda: Support(cloud(), states(cloud(20)), generator()).distances(cloud(3, dimensions=6)), "5 dimensions"),
        (
            lambda: coverage(
                Support(cloud(), states(cloud(20)), generator()), states(cloud(20)), generator(), max_queries=0
            ),
            "`max_queries`",
        ),
        (lambda: States(cloud(5), np.arange(4), np.arange(5)), "one row for each"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
