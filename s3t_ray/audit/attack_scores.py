"""The statistics of a membership audit: attack scores, AUC, true positives at few false ones, intervals. Pure.

In: losses of records under several models, as numbers. Out: scores (higher: more like a member) and intervals.
Knows no run, no model and no text; reads no disk. The same seed gives the same interval.

Attacks on a record x with labelled tokens t, target model k and reference models R that never saw x:
    reference_loss   mean over R of nll_R(x), less nll_k(x)        (nll: mean over t of -log p, in nats)
    min_k            mean of the lowest 20% of log p_k(t)          (Shi et al. 2024, "Min-K% Prob", k = 20)
    min_k_reference  min_k under k, less the mean of min_k over R
Taking what the references say off removes how hard a text is for anybody, which is most of the variation.

Shapes: N tested records, M never-seen records, B resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

Floats = NDArray[np.float64]

MIN_K_SHARE = 0.2
"""Share of a record's tokens that Min-K% looks at: those that the model expected least."""
CONFIDENCE = 0.95
RESAMPLES = 2000
FALSE_POSITIVE_RATES = (0.001, 0.01, 0.1)
_FALSE_POSITIVES = 5  # never-seen records above a threshold, below which a rate of them means little
_TESTED = 10  # records, below which a rate of true positives means little
_BATCH_NUMBERS = 1 << 22  # of one batch of resamples


class Attack(StrEnum):
    """How a record is judged. The first is the one by which the audit concludes."""

    REFERENCE_LOSS = "reference_loss"
    MIN_K = "min_k"
    MIN_K_REFERENCE = "min_k_reference"


@dataclass(frozen=True)
class RecordLoss:
    """One record under each model, in the models' order."""

    nll: tuple[float, ...]
    """Mean negative log-likelihood a prediction: labelled tokens, or the label of the record, in nats."""
    min_k: tuple[float, ...] | None
    """Mean of the lowest 20% of the labelled tokens' log-likelihoods; None where the record is judged as a whole."""


@dataclass(frozen=True)
class Lens:
    """Which model is attacked, and by comparison with which others: their places in `RecordLoss`."""

    target: int
    references: tuple[int, ...]


@dataclass(frozen=True)
class ScoreEstimate:
    """A value and its 95% confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Detection:
    """Share of the tested records found (`found`) when at most `false_positives` of the never-seen are accused."""

    false_positives: float
    found: ScoreEstimate


def own_lens(at: int, models: int) -> Lens:
    """For the records of model `at` of `models`: that model against all others. The base model comes after them all,
    and is the reference where there is no other."""
    return Lens(at, _all_but({at}, models))


def other_lens(at: int, models: int) -> Lens:
    """For the same records, as if they were another model's, which never saw them. The one that did is left out."""
    target = (at + 1) % models
    return Lens(target, _all_but({at, target}, models))


def _all_but(out: set[int], models: int) -> tuple[int, ...]:
    return tuple(index for index in range(models) if index not in out) or (models,)


def min_k(log_likelihoods: Sequence[float]) -> float:
    """Mean of the lowest 20% of `log_likelihoods` (one or more of them), in nats."""
    lowest = sorted(log_likelihoods)[: max(1, int(len(log_likelihoods) * MIN_K_SHARE))]
    return float(np.mean(lowest))


def score(loss: RecordLoss, attack: Attack, lens: Lens) -> float:
    """What `attack` makes of one record. ValueError: Min-K% of a record that is judged as a whole."""
    if attack is Attack.REFERENCE_LOSS:
        return float(np.mean([loss.nll[model] for model in lens.references])) - loss.nll[lens.target]
    if loss.min_k is None:
        raise ValueError(f"{attack} needs tokens, but a label has none")
    if attack is Attack.MIN_K:
        return loss.min_k[lens.target]
    return loss.min_k[lens.target] - float(np.mean([loss.min_k[model] for model in lens.references]))


def wins(tested_N: Floats, never_seen_NM: Floats) -> Floats:
    """[N, M]: 1 where a tested record scores above a never-seen one, 0.5 where equal, else 0.

    Row i of `never_seen_NM` has the never-seen records' scores through the lens of tested record i, so that
    records of different shards are each compared under one and the same model.
    """
    own = tested_N[:, None]
    return np.where(own > never_seen_NM, 1.0, np.where(own == never_seen_NM, 0.5, 0.0))


def auc(tested_N: Floats, never_seen_NM: Floats, seed: int) -> ScoreEstimate:
    """Chance that a tested record scores above a never-seen one: 0.5 is no difference, 1 is perfect separation.

    With one lens it is the Mann-Whitney statistic U / (N M). Interval: the wider, at each end, of the bootstrap
    (BCa, over both groups) and of Newcombe's score interval (2006, method 5). The bootstrap alone claims
    certainty when the groups happen not to overlap, and is too narrow for a handful of records.
    """
    won_NM = wins(tested_N, never_seen_NM)
    value = float(won_NM.mean())
    tested, never_seen = won_NM.shape

    def mean_of(rows_BN: NDArray[np.int64], columns_BM: NDArray[np.int64]) -> Floats:
        # Whole and half numbers until the one division: BCa asks which resamples equal the value to the bit.
        won_B = ((_counts(rows_BN, tested) @ won_NM) * _counts(columns_BM, never_seen)).sum(axis=-1)
        return won_B / (rows_BN.shape[-1] * columns_BM.shape[-1])

    bootstrap = _bootstrap(mean_of, tested, never_seen, seed, "BCa")
    return _widest(value, bootstrap, _newcombe(value, tested, never_seen))


def detections(tested_N: Floats, never_seen_NM: Floats, seed: int) -> tuple[Detection, ...]:
    """True positives at each of `FALSE_POSITIVE_RATES` for which there are records enough (5 false positives).

    A tested record is found when it scores above all but the allowed share of the never-seen. Interval: the
    wider, at each end, of the bootstrap (percentile, over both groups) and of Wilson's for a share.
    """
    tested, never_seen = never_seen_NM.shape
    if tested < _TESTED:
        return ()
    found = []
    for rate in FALSE_POSITIVE_RATES:
        allowed = int(rate * never_seen)
        if allowed < _FALSE_POSITIVES:
            continue
        hits_N = tested_N > _thresholds(never_seen_NM, allowed)
        bootstrap = _bootstrap(_share_found(tested_N, never_seen_NM, allowed), tested, never_seen, seed, "percentile")
        wilson = stats.binomtest(int(hits_N.sum()), tested).proportion_ci(CONFIDENCE, method="wilson")
        found.append(Detection(rate, _widest(float(hits_N.mean()), bootstrap, (wilson.low, wilson.high))))
    return tuple(found)


def _thresholds(never_seen_NM: Floats, allowed: int) -> Floats:
    """For each tested record the score that at most `allowed` of its never-seen exceed."""
    return np.sort(never_seen_NM, axis=-1)[..., -allowed - 1]


def _share_found(
    tested_N: Floats, never_seen_NM: Floats, allowed: int
) -> Callable[[NDArray[np.int64], NDArray[np.int64]], Floats]:
    """The statistic of `detections`. Records of one lens have equal rows: each distinct row is sorted once."""
    lenses_KM, lens_of_N = np.unique(never_seen_NM, axis=0, return_inverse=True)

    def share(rows_BN: NDArray[np.int64], columns_BM: NDArray[np.int64]) -> Floats:
        thresholds_KB = np.stack([_thresholds(lens_M[columns_BM], allowed) for lens_M in lenses_KM])
        hits_BN = [
            tested_N[rows] > thresholds_K[lens_of_N[rows]]
            for rows, thresholds_K in zip(rows_BN, thresholds_KB.T, strict=True)
        ]
        return np.mean(hits_BN, axis=-1)

    return share


def _bootstrap(
    statistic: Callable[[NDArray[np.int64], NDArray[np.int64]], Floats],
    tested: int,
    never_seen: int,
    seed: int,
    method: str,
) -> tuple[float, float]:
    """Interval of `statistic(rows [B, N], columns [B, M]) -> [B]` over resampled indices; none is (inf, -inf)."""
    if min(tested, never_seen) < 2:
        return inf, -inf  # one record shows no spread

    def vectorised(rows: NDArray[np.int64], columns: NDArray[np.int64], axis: int) -> Floats:
        lead = np.broadcast_shapes(rows.shape[:-1], columns.shape[:-1])  # BCa's jackknife resamples one side only
        rows_BN = np.broadcast_to(rows, (*lead, rows.shape[-1])).reshape(-1, rows.shape[-1])
        columns_BM = np.broadcast_to(columns, (*lead, columns.shape[-1])).reshape(-1, columns.shape[-1])
        return statistic(rows_BN, columns_BM).reshape(lead)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # no spread: answered below
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = stats.bootstrap(
            (np.arange(tested), np.arange(never_seen)),
            vectorised,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH_NUMBERS // max(tested, never_seen)),
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    if not np.isfinite([interval.low, interval.high]).all():
        return inf, -inf
    return float(interval.low), float(interval.high)


def _counts(index_BX: NDArray[np.int64], size: int) -> Floats:
    """[B, size]: how often each index stands in a row of `index_BX`."""
    batch = len(index_BX)
    flat = index_BX + size * np.arange(batch)[:, None]
    return np.bincount(flat.ravel(), minlength=batch * size).reshape(batch, size).astype(np.float64)


def _newcombe(value: float, tested: int, never_seen: int) -> tuple[float, float]:
    """Score interval of an AUC: every value whose own standard error explains what was seen.

    Unlike the bootstrap it stays honest when no pair is lost, and for a single record.
    """
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    pairs = (tested + never_seen) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + pairs * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - value) ** 2 - z * z * theta * (1 - theta) * spread / (tested * never_seen)

    edge = 1e-9  # `excess` has a root at 0 and at 1 that means nothing when `value` is there
    low = brentq(excess, 0.0, value - edge) if value > edge else 0.0
    high = brentq(excess, value + edge, 1.0) if value < 1 - edge else 1.0
    return float(low), float(high)


def _widest(value: float, *intervals: tuple[float, float]) -> ScoreEstimate:
    return ScoreEstimate(
        value, min(value, *(low for low, _ in intervals)), max(value, *(high for _, high in intervals))
    )
