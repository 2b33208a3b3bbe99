import numpy as np
import pytest
from scipy.stats import spearmanr

from offline_eval.diagnostics.policy_error import ActionPairs, policy_error, return_correlation, set_error
from offline_eval.errors import InputError


def generator(seed=0):
    return np.random.default_rng(seed)


def pairs(offset=0.0, seed=0, num_trajectories=30, num_steps=20, spread=0.0):
    """Actions of 3 dimensions that differ from the oracle's by `offset`, and by `spread` for each trajectory."""
    draw = generator(seed)
    trajectories = np.repeat(np.arange(num_trajectories), num_steps)
    oracle = draw.uniform(-1, 1, (len(trajectories), 3))
    shift = offset + spread * draw.normal(size=num_trajectories)[trajectories, None]
    return ActionPairs(oracle + shift, oracle, trajectories, np.tile(np.arange(num_steps), num_trajectories))


def test_the_error_by_hand():
    # Squared differences (1, 4) and (0, 0) and (9, 0): means 2.5, 0, 4.5.
    given = ActionPairs([[1, 2], [0, 0], [3, 0]], np.zeros((3, 2)), [0, 0, 1], [0, 1, 0])
    assert given.squared_error.tolist() == [2.5, 0.0, 4.5]
    error = set_error(given, generator())
    assert error.mse.value == pytest.approx(7 / 3)
    assert (error.mse.ci95.low, error.mse.ci95.high) == (1.25, 4.5)
    assert error.curve.positions.tolist() == [0.0, 1.0]
    assert error.curve.values.tolist() == [3.5, 0.0]
    assert error.num_states == 3


def test_the_oracle_itself_has_no_error():
    error = policy_error(pairs(), generator(), oracle="itself", validation=pairs(seed=1), evaluation=pairs(seed=2))
    for part in (error.training, error.validation, error.evaluation):
        assert part.mse.value == part.mse.ci95.high == 0.0
        assert not part.curve.values.any()
    assert error.generalisation is None  # nothing to divide by


def test_three_errors_and_their_ratio():
    error = policy_error(
        pairs(0.1), generator(), oracle="planted", validation=pairs(0.2, seed=1), evaluation=pairs(0.3, seed=2)
    )
    mses = [part.mse.value for part in (error.training, error.validation, error.evaluation)]
    assert mses == pytest.approx([0.01, 0.04, 0.09])
    assert error.generalisation.value == pytest.approx(9.0)
    assert error.oracle == "planted"


def test_what_was_not_rolled_out_is_missing():
    error = policy_error(pairs(0.1), generator(), oracle="planted")
    assert error.validation is error.evaluation is error.generalisation is None


def test_intervals_go_by_trajectory():
    given = pairs(spread=0.3)
    apart = ActionPairs(given.policy, given.oracle, np.arange(len(given.policy)), given.steps)
    by_trajectory, by_state = set_error(given, generator()).mse, set_error(apart, generator()).mse
    assert by_trajectory.value == pytest.approx(by_state.value)
    wide, narrow = (estimate.ci95.high - estimate.ci95.low for estimate in (by_trajectory, by_state))
    assert wide == pytest.approx(narrow * np.sqrt(20), rel=0.3)


def test_the_planted_error_is_in_the_interval():
    covered = sum(0.09 in set_error(pairs(spread=0.3, seed=seed), generator()).mse.ci95 for seed in range(40))
    assert covered >= 32  # a chi-square is skewed: .9 with 30 trajectories


def test_the_curve_sees_where_an_episode_leaves_the_data():
    given = pairs()
    late = np.where(given.steps >= 10, 0.5, 0.0)[:, None]
    error = set_error(ActionPairs(given.oracle + late, given.oracle, given.trajectories, given.steps), generator())
    assert error.curve.values == pytest.approx([0.0] * 10 + [0.25] * 10)


def test_the_correlation_of_return_and_error_is_spearmans():
    returns, errors = [10, 20, 30, 20], [4, 3, 1, 1]
    assert return_correlation(returns, errors) == pytest.approx(spearmanr(returns, errors).statistic)
    assert return_correlation([1, 5, 100], [0.3, 0.2, 0.1]) == pytest.approx(-1.0)


def test_nan_is_named_by_index():
    with pytest.raises(InputError, match=r"`policy` must be finite\. Received nan at index \(1, 0\) \(1 of 4 values\)"):
        ActionPairs([[0, 0], [np.nan, 0]], np.zeros((2, 2)), [0, 0], [0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ActionPairs(np.zeros((2, 3)), np.zeros((2, 2)), [0, 0], [0, 1]),
            "`oracle` must have actions of shape",
        ),
        (lambda: ActionPairs(np.zeros((2, 3)), np.zeros((1, 3)), [0, 0], [0, 1]), "one row for each"),
        (lambda: ActionPairs(np.zeros(2), np.zeros(2), [0, 0], [0, 1]), "2 axes"),
        (lambda: policy_error(pairs(), generator(), oracle=" "), "must say what"),
        (lambda: return_correlation([1, 1], [1, 2]), "`returns` must vary"),
        (lambda: return_correlation([1, 2, 3], [1, 2]), "one row for each"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
