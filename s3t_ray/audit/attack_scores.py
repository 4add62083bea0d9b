"""The statistics of a membership audit: attack scores, AUC, true positives at few false ones, intervals. Pure.

In: losses of records under several models, as numbers. Out: scores (higher: more like a member) and intervals.
Knows nothing about runs, models or texts; reads no disk. The same seed gives the same interval.

Attacks on a record x with labelled tokens t, target model k and reference models R that never saw x:
    reference_loss   mean over R of nll_R(x), minus nll_k(x)       (nll: mean over t of -log p, in nats)
    min_k            mean of the lowest 20% of log p_k(t)          (Shi et al. 2024, "Min-K% Prob", k = 20)
    min_k_reference  min_k under k, minus the mean of min_k over R
Subtracting the references removes the general difficulty of a text, which is most of the variation.

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
"""Share of a record's tokens that Min-K% uses: those that the model expected least."""
CONFIDENCE = 0.95
RESAMPLES = 2000
FALSE_POSITIVE_RATES = (0.001, 0.01, 0.1)
_FALSE_POSITIVES = 5  # minimum never-seen records above a threshold for a meaningful rate
_TESTED = 10  # minimum records for a meaningful rate of true positives
_BATCH_NUMBERS = 1 << 22  # numbers per batch of resamples


class Attack(StrEnum):
    """How a record is scored. The audit's conclusion uses the first."""

    REFERENCE_LOSS = "reference_loss"
    MIN_K = "min_k"
    MIN_K_REFERENCE = "min_k_reference"


@dataclass(frozen=True)
class RecordLoss:
    """The losses of one record under each model, in the models' order."""

    nll: tuple[float, ...]
    """Mean negative log-likelihood per prediction (labelled token, or label of the record), in nats."""
    min_k: tuple[float, ...] | None
    """Mean of the lowest 20% of the labelled tokens' log-likelihoods; None for records with a single label."""


@dataclass(frozen=True)
class Lens:
    """The attacked model and its reference models, as indexes in `RecordLoss`."""

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
    """Share of tested records found (`found`) at a false positive rate of at most `false_positives`."""

    false_positives: float
    found: ScoreEstimate


def own_lens(at: int, models: int) -> Lens:
    """The lens for records of model `at` of `models`: that model against all others. The base model comes last, and is
    the reference if there is no other."""
    return Lens(at, _all_but({at}, models))


def other_lens(at: int, models: int) -> Lens:
    """The lens that tests the same records on another model, which never saw them; leaves out the one that did."""
    target = (at + 1) % models
    return Lens(target, _all_but({at, target}, models))


def _all_but(out: set[int], models: int) -> tuple[int, ...]:
    return tuple(index for index in range(models) if index not in out) or (models,)


def min_k(log_likelihoods: Sequence[float]) -> float:
    """Mean of the lowest 20% of `log_likelihoods` (one or more of them), in nats."""
    lowest = sorted(log_likelihoods)[: max(1, int(len(log_likelihoods) * MIN_K_SHARE))]
    return float(np.mean(lowest))


def score(loss: RecordLoss, attack: Attack, lens: Lens) -> float:
    """Score of one record under `attack`. ValueError: Min-K% of a record with a single label."""
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
    each comparison uses a single model even across shards.
    """
    own = tested_N[:, None]
    return np.where(own > never_seen_NM, 1.0, np.where(own == never_seen_NM, 0.5, 0.0))


def auc(tested_N: Floats, never_seen_NM: Floats, seed: int) -> ScoreEstimate:
    """Probability that a tested record scores above a never-seen one: 0.5 is no difference, 1 is perfect separation.

    With one lens it is the Mann-Whitney statistic U / (N M). The interval takes the wider end, on each side, of the
    bootstrap (BCa, over both groups) and Newcombe's score interval (2006, method 5). The bootstrap alone claims
    certainty if the groups do not overlap, and is too narrow for few records.
    """
    won_NM = wins(tested_N, never_seen_NM)
    value = float(won_NM.mean())
    tested, never_seen = won_NM.shape

    def mean_of(rows_BN: NDArray[np.int64], columns_BM: NDArray[np.int64]) -> Floats:
        # Integers and halves until the final division: BCa needs to know which resamples equal the value exactly.
        won_B = ((_counts(rows_BN, tested) @ won_NM) * _counts(columns_BM, never_seen)).sum(axis=-1)
        return won_B / (rows_BN.shape[-1] * columns_BM.shape[-1])

    bootstrap = _bootstrap(mean_of, tested, never_seen, seed, "BCa")
    return _widest(value, bootstrap, _newcombe(value, tested, never_seen))


def detections(tested_N: Floats, never_seen_NM: Floats, seed: int) -> tuple[Detection, ...]:
    """True positives at each of `FALSE_POSITIVE_RATES` that has enough records (5 false positives).

    A tested record is found if it scores above all but the allowed share of never-seen records. The interval takes the
    wider end, on each side, of the bootstrap (percentile, over both groups) and Wilson's interval for a share.
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
    """For each tested record, the score that at most `allowed` of its never-seen records exceed."""
    return np.sort(never_seen_NM, axis=-1)[..., -allowed - 1]


def _share_found(
    tested_N: Floats, never_seen_NM: Floats, allowed: int
) -> Callable[[NDArray[np.int64], NDArray[np.int64]], Floats]:
    """The statistic of `detections`. Records with the same lens have equal rows, which are sorted only once."""
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
        return inf, -inf  # one record has no spread

    def vectorised(rows: NDArray[np.int64], columns: NDArray[np.int64], axis: int) -> Floats:
        lead = np.broadcast_shapes(rows.shape[:-1], columns.shape[:-1])  # BCa's jackknife resamples only one side
        rows_BN = np.broadcast_to(rows, (*lead, rows.shape[-1])).reshape(-1, rows.shape[-1])
        columns_BM = np.broadcast_to(columns, (*lead, columns.shape[-1])).reshape(-1, columns.shape[-1])
        return statistic(rows_BN, columns_BM).reshape(lead)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # no spread: handled below
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
    """[B, size]: how often each index occurs in a row of `index_BX`."""
    batch = len(index_BX)
    flat = index_BX + size * np.arange(batch)[:, None]
    return np.bincount(flat.ravel(), minlength=batch * size).reshape(batch, size).astype(np.float64)


def _newcombe(value: float, tested: int, never_seen: int) -> tuple[float, float]:
    """Score interval of an AUC: every value whose own standard error explains the observed one.

    Unlike the bootstrap, it is valid if no pair is lost, and for a single record.
    """
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    pairs = (tested + never_seen) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + pairs * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - value) ** 2 - z * z * theta * (1 - theta) * spread / (tested * never_seen)

    edge = 1e-9  # `excess` has meaningless roots at 0 and 1 if `value` is there
    low = brentq(excess, 0.0, value - edge) if value > edge else 0.0
    high = brentq(excess, value + edge, 1.0) if value < 1 - edge else 1.0
    return float(low), float(high)


def _widest(value: float, *intervals: tuple[float, float]) -> ScoreEstimate:
    return ScoreEstimate(
        value, min(value, *(low for low, _ in intervals)), max(value, *(high for _, high in intervals))
    )
