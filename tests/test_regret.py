import numpy as np
import pytest

from offline_eval.diagnostics.regret import CandidateTruth, CandidateValues, extraction_regret
from offline_eval.errors import InputError


def generator(seed=0):
    return np.random.default_rng(seed)


def critics(error=0.0, gap=0.0, n_critics=2, num_rollouts=4, noise=0.0, num_states=200, seed=0):
    """Candidates worth N(0, 1) in truth, a policy `gap` below the best, critics off by N(0, error) each on its own."""
    draw = generator(seed)
    worth = draw.normal(size=(num_states, 9))
    worth[:, 0] = worth[:, 1:].max(axis=1) - gap
    values = worth + error * draw.normal(size=(n_critics, num_states, 9))
    rollouts = worth[..., None] + noise * draw.normal(size=(num_states, 9, num_rollouts))
    truth = CandidateTruth(rollouts[:, 0], rollouts[:, 1:])
    return CandidateValues(values[..., 0], values[..., 1:], np.arange(num_states), truth=truth)


def test_regret_by_hand():
    # Two critics, one state, two candidates. Minimum: policy 1, candidates 2 and 4.
    values = CandidateValues(
        policy=[[1.0], [2.0]],
        candidates=[[[2.0, 5.0]], [[6.0, 4.0]]],
        episodes=[0],
        truth=CandidateTruth([[1.0, 3.0]], [[[0.0, 0.0], [2.0, 8.0]]]),
    )
    regret = extraction_regret(values, generator())
    assert regret.spread == 1.0  # the standard deviation of 2 and 4
    assert regret.claimed.value == 3.0
    # The first critic picks the second candidate, which the second scores 4 - 2; the second picks the first: 2 - 1.
    assert regret.corrected.value == 1.5
    assert regret.winners_curse == 1.5
    assert regret.realised.value == 3.0  # (2 + 8) / 2 - (1 + 3) / 2
    # Halves (1, 0, 2) and (3, 0, 8) both pick the second candidate: 8 - 3 and 2 - 1.
    assert regret.attainable.value == 3.0
    assert (regret.share_better, regret.num_states, regret.n_critics, regret.num_rollouts) == (1.0, 1, 2, 2)


def test_the_unit_is_the_spread_within_a_state_over_the_data():
    # Levels differ by 1000 between the states; the third candidate is not from the data.
    values = CandidateValues(
        policy=[[0.0, 1000.0]],
        candidates=[[[-1.0, 1.0, 6.0], [997.0, 1003.0, 1000.0]]],
        episodes=[0, 1],
        from_data=[True, True, False],
    )
    regret = extraction_regret(values, generator())
    assert regret.spread == 2.0
    assert regret.claimed.value == pytest.approx((6 + 3) / 2 / 2)


def test_the_best_policy_has_no_regret():
    regret = extraction_regret(critics(), generator())
    for estimate in (regret.claimed, regret.corrected, regret.realised, regret.attainable):
        assert estimate.value == estimate.ci95.low == estimate.ci95.high == 0.0
    assert regret.share_better == 0.0


def test_a_planted_gap_is_found_by_all_four():
    regret = extraction_regret(critics(gap=1.5), generator())
    for estimate in (regret.claimed, regret.corrected, regret.realised, regret.attainable):
        assert estimate.value * regret.spread == pytest.approx(1.5)


def test_a_wrong_critic_claims_what_is_not_there():
    # The policy is the best there is; the critic's errors are as large as what it estimates.
    regret = extraction_regret(critics(error=2.0, noise=1.0), generator())
    assert regret.claimed.ci95.low > 0.5
    assert regret.realised.ci95.high < 0.0
    assert regret.corrected.value < 0.0  # critics that are independent of each other refute the claim
    assert regret.attainable.value == pytest.approx(0.0, abs=0.15)


def test_the_correction_measures_a_gain_without_bias():
    # All actions are worth the same: whatever is claimed is the winner's curse, whatever is left has mean 0.
    regrets = []
    for seed in range(40):
        draw = generator(seed)
        values = CandidateValues(draw.normal(size=(2, 100)), draw.normal(size=(2, 100, 20)), np.arange(100))
        regrets.append(extraction_regret(values, draw))
    assert min(regret.claimed.value for regret in regrets) > 1.0
    assert min(regret.winners_curse for regret in regrets) > 1.0
    assert np.mean([regret.corrected.value for regret in regrets]) == pytest.approx(0.0, abs=0.05)
    assert sum(0.0 in regret.corrected.ci95 for regret in regrets) >= 34  # 95 % of 40, less three deviations


def test_choosing_and_scoring_on_the_same_rollouts_would_overstate():
    values = critics(noise=2.0)
    means = np.concatenate([values.truth.policy[:, None], values.truth.candidates], axis=1).mean(axis=2)
    naive = (means.max(axis=1) - means[:, 0]).mean()
    attainable = extraction_regret(values, generator()).attainable
    assert naive > 0.5
    assert attainable.value < 0.1


def test_the_reduction_is_the_callers_choice():
    values = critics(error=1.0, n_critics=3)
    mean = extraction_regret(values, generator(), reduce=lambda ensemble: ensemble.mean(axis=0))
    alone = CandidateValues(values.policy.mean(axis=0)[None], values.candidates.mean(axis=0)[None], values.episodes)
    single = extraction_regret(alone, generator())
    assert mean.claimed.value == single.claimed.value
    assert single.corrected is single.winners_curse is single.realised is single.attainable is None


def test_one_rollout_realises_but_cannot_attain():
    regret = extraction_regret(critics(gap=1.0, num_rollouts=1), generator())
    assert regret.realised.value * regret.spread == pytest.approx(1.0)
    assert regret.attainable is None
    assert regret.num_rollouts == 1


def test_parts_of_the_states_add_up():
    values = critics(error=0.5, gap=0.5)
    inside = np.arange(200) < 50
    whole, parts = extraction_regret(values, generator()), [values.where(inside), values.where(~inside)]
    regrets = [extraction_regret(part, generator()) for part in parts]
    assert [regret.num_states for regret in regrets] == [50, 150]
    gains = [regret.realised.value * regret.spread * regret.num_states for regret in regrets]
    assert sum(gains) / 200 == pytest.approx(whole.realised.value * whole.spread)


def test_states_of_one_episode_count_as_one():
    values = critics(error=0.5)
    together = CandidateValues(values.policy, values.candidates, np.repeat(np.arange(4), 50))
    regret = extraction_regret(together, generator())
    assert regret.claimed.num_clusters == 4
    assert not regret.claimed.ci95.honest


def test_a_critic_that_ignores_the_action_is_refused():
    with pytest.raises(InputError, match="the critic ignores the action"):
        extraction_regret(CandidateValues([[1.0]], [[[1.0, 1.0]]], [0]), generator())


def test_nan_is_named_by_index():
    with pytest.raises(InputError, match=r"`candidates` must be finite\. Received nan at index \(0, 1, 0\)"):
        CandidateValues([[1.0, 2.0]], [[[1.0, 1.0], [np.nan, 1.0]]], [0, 1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policy": np.zeros((2, 4))}, "`candidates` must have shape"),
        ({"episodes": [0]}, "one row for each"),
        ({"from_data": [True, False, False]}, "two or more"),
        ({"from_data": [True, True]}, "two or more"),
        ({"truth": CandidateTruth(np.zeros((5, 2)), np.zeros((5, 3, 4)))}, "`truth` must rate"),
        ({"truth": CandidateTruth(np.zeros((5, 2)), np.zeros((5, 4, 2)))}, "`truth` must rate"),
        ({"truth": CandidateTruth(np.full((5, 2), np.nan), np.zeros((5, 3, 2)))}, "`truth.policy` must be finite"),
    ],
)
def test_bad_input_is_refused(fields, message):
    given = {"policy": np.zeros((2, 5)), "candidates": np.zeros((2, 5, 3)), "episodes": np.arange(5), **fields}
    with pytest.raises(InputError, match=message):
        CandidateValues(**given)
