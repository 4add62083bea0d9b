"""The statistics of the audit against slow, obvious versions: pairs counted one by one, scipy's own tests, a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from s3t_ray.audit import attack_scores
from s3t_ray.audit.attack_scores import Attack, Lens, RecordLoss, auc, detections, min_k, other_lens, own_lens, score

few = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=8)


def one_lens(tested: list[float], never_seen: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(tested), np.tile(never_seen, (len(tested), 1))


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=40))
def test_min_k_is_the_mean_of_the_least_expected_fifth(log_likelihoods: list[float]) -> None:
    wanted = max(1, len(log_likelihoods) // 5)
    left = list(log_likelihoods)
    lowest: list[float] = []
    while len(lowest) < wanted:
        lowest.append(min(left))
        left.remove(min(left))
    assert min_k(log_likelihoods) == pytest.approx(sum(lowest) / wanted)


def test_each_attack_is_higher_for_what_its_own_model_knows_better() -> None:
    loss = RecordLoss(nll=(1.0, 3.0, 4.0), min_k=(-2.0, -5.0, -9.0))
    lens = Lens(0, (1, 2))
    assert score(loss, Attack.REFERENCE_LOSS, lens) == pytest.approx((3 + 4) / 2 - 1)
    assert score(loss, Attack.MIN_K, lens) == -2.0
    assert score(loss, Attack.MIN_K_REFERENCE, lens) == pytest.approx(-2 - (-5 - 9) / 2)
    assert score(loss, Attack.REFERENCE_LOSS, Lens(2, (0,))) == -3.0


@pytest.mark.parametrize("models", [1, 2, 3, 5])
def test_no_reference_ever_saw_the_record(models: int) -> None:
    base = models
    for at in range(models):
        own = own_lens(at, models)
        assert own.target == at
        assert set(own.references) == (set(range(models)) - {at} or {base})
        if models > 1:
            other = other_lens(at, models)
            assert other.target not in (at, base)
            assert set(other.references) == (set(range(models)) - {at, other.target} or {base})


def test_a_label_has_no_tokens_to_take_the_lowest_of() -> None:
    with pytest.raises(ValueError, match="needs tokens"):
        score(RecordLoss((1.0, 2.0), None), Attack.MIN_K, Lens(0, (1,)))


@given(few, few)
def test_auc_is_the_share_of_pairs_won_and_scipys_mann_whitney(tested: list[float], never_seen: list[float]) -> None:
    pairs = [1.0 if own > other else 0.5 if own == other else 0.0 for own in tested for other in never_seen]
    value = float(attack_scores.wins(*one_lens(tested, never_seen)).mean())
    assert value == pytest.approx(sum(pairs) / len(pairs))
    statistic = stats.mannwhitneyu(tested, never_seen, method="asymptotic").statistic
    assert value == pytest.approx(statistic / len(pairs))


def test_each_record_is_compared_through_its_own_lens() -> None:
    # Shard 1's model gives everybody 10 more: compared across lenses, its records would win all pairs.
    tested, never_seen = np.array([0.5, 10.5]), np.array([[0.0, 1.0], [10.0, 11.0]])
    assert auc(tested, never_seen, seed=0).value == 0.5


def test_the_bootstrap_is_scipys_over_the_records_themselves() -> None:
    dice = np.random.default_rng(5)
    tested, never_seen = dice.normal(0.5, 1, 12), dice.normal(0, 1, 9)

    def slow(own: np.ndarray, other: np.ndarray) -> float:
        return float(np.mean([[x > y for y in other] for x in own]))

    plain = stats.bootstrap(
        (tested, never_seen),
        slow,
        vectorized=False,
        n_resamples=attack_scores.RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(3),
    ).confidence_interval
    score_interval = attack_scores._newcombe(slow(tested, never_seen), 12, 9)
    found = auc(tested, np.tile(never_seen, (12, 1)), seed=3)
    assert found.value == pytest.approx(slow(tested, never_seen))
    assert found.low == pytest.approx(min(plain.low, score_interval[0]))
    assert found.high == pytest.approx(max(plain.high, score_interval[1]))
    assert found == auc(tested, np.tile(never_seen, (12, 1)), seed=3)


@pytest.mark.parametrize(("value", "tested", "never_seen"), [(0.5, 5, 16), (0.9, 5, 16), (1.0, 5, 16), (0.0, 1, 4)])
def test_the_score_interval_holds_every_value_that_explains_what_was_seen(
    value: float, tested: int, never_seen: int
) -> None:
    z, half = stats.norm.ppf(0.975), (tested + never_seen) / 2 - 1
    explains = []
    for theta in np.linspace(1e-6, 1 - 1e-6, 20_001):
        spread = 1 + half * (1 - theta) / (2 - theta) + half * theta / (1 + theta)
        error = math.sqrt(theta * (1 - theta) * spread / (tested * never_seen))
        if abs(theta - value) <= z * error:
            explains.append(theta)
    low, high = attack_scores._newcombe(value, tested, never_seen)
    assert low == pytest.approx(min(explains), abs=1e-4)
    assert high == pytest.approx(max(explains), abs=1e-4)


def test_few_records_without_overlap_are_no_certainty() -> None:
    apart = auc(*one_lens([9.0, 8.0, 7.0, 9.5, 8.5], [float(index) / 16 for index in range(16)]), seed=0)
    assert (apart.value, apart.high) == (1.0, 1.0)
    assert 0.6 < apart.low < 0.85
    single = auc(*one_lens([9.0], [1.0, 2.0, 3.0]), seed=0)
    assert single.low < 0.5 < single.high


@pytest.mark.parametrize("shift", [0.0, 2.33])  # AUC 0.50, 0.95
def test_intervals_of_five_records_cover_the_truth(shift: float) -> None:
    truth = stats.norm.cdf(shift / math.sqrt(2))
    dice = np.random.default_rng(1)
    missed = 0
    for trial in range(100):
        found = auc(dice.normal(shift, 1, 5), np.tile(dice.normal(0, 1, 16), (5, 1)), seed=trial)
        missed += not found.low <= truth <= found.high
    assert missed <= 8  # of 100, where 5 are to be expected


def test_detections_allow_no_more_false_positives_than_they_say() -> None:
    dice = np.random.default_rng(2)
    tested, never_seen = dice.normal(1, 1, 30), dice.normal(0, 1, 500).round(1)
    found = detections(tested, np.tile(never_seen, (30, 1)), seed=0)
    assert [each.false_positives for each in found] == [0.01, 0.1]  # 0.001 of 500 is less than one record
    for each in found:
        # The lowest bar that few enough never-seen records pass.
        bars = [bar for bar in never_seen if np.mean(never_seen > bar) <= each.false_positives]
        assert each.found.value == np.mean(tested > min(bars))
        assert each.found.low < each.found.value < each.found.high


def test_detections_need_records_to_accuse_falsely() -> None:
    assert detections(*one_lens([5.0] * 30, [float(index) for index in range(49)]), seed=0) == ()
    assert detections(*one_lens([5.0] * 9, [float(index) for index in range(500)]), seed=0) == ()


def test_detections_go_through_each_records_own_lens() -> None:
    dice = np.random.default_rng(4)
    scale = dice.normal(0, 1, 60)
    tested = np.concatenate([dice.normal(1, 1, 15), dice.normal(101, 1, 15)])
    (found,) = detections(tested, np.stack([scale] * 15 + [scale + 100] * 15), seed=0)
    (same,) = detections(tested - np.repeat([0, 100], 15), np.tile(scale, (30, 1)), seed=0)
    assert found.found.value == same.found.value < 1
    assert (found.found.low, found.found.high) == pytest.approx((same.found.low, same.found.high))
