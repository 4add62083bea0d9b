"""Metrics for classification and regression, as in GLUE and SuperGLUE.

In: predictions and true labels per record: class indices, or values. Out: one number per metric; NaN if it is not
defined, such as a correlation with a constant. The definitions follow scikit-learn and scipy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Numbers = Sequence[float]


def accuracy(said: Numbers, true: Numbers) -> float:
    """The fraction of correct predictions."""
    return float(np.mean(np.asarray(said) == np.asarray(true)))


def f1(said: Numbers, true: Numbers) -> float:
    """The F1 score of class 1, the second of two; 0 if the class is neither predicted nor true."""
    return _f1_of(1, np.asarray(said), np.asarray(true))


def f1_macro(said: Numbers, true: Numbers) -> float:
    """The mean F1 score over all classes that are predicted or true."""
    found, wanted = np.asarray(said), np.asarray(true)
    return float(np.mean([_f1_of(each, found, wanted) for each in np.union1d(found, wanted)]))


def matthews(said: Numbers, true: Numbers) -> float:
    """The Matthews correlation coefficient, for any number of classes; 0 if predictions or labels are constant."""
    classes, places = np.unique(np.concatenate([said, true]), return_inverse=True)
    table = np.zeros((len(classes), len(classes)))
    np.add.at(table, (places[: len(said)], places[len(said) :]), 1)
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), table.sum()
    spread = (total**2 - rows @ rows) * (total**2 - columns @ columns)
    return float((np.trace(table) * total - rows @ columns) / math.sqrt(spread)) if spread else 0.0


def pearson(said: Numbers, true: Numbers) -> float:
    """The Pearson correlation; NaN if predictions or labels are constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, said, true)


def spearman(said: Numbers, true: Numbers) -> float:
    """The Spearman rank correlation; NaN if predictions or labels are constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, said, true)


TASK_METRICS: Mapping[str, Callable[[Numbers, Numbers], float]] = {
    function.__name__: function for function in (accuracy, f1, f1_macro, matthews, pearson, spearman)
}
"""The metrics, by their names in `task.metrics`."""


def _f1_of(positive: float, said: np.ndarray, true: np.ndarray) -> float:
    right = np.sum((said == positive) & (true == positive))
    both = np.sum(said == positive) + np.sum(true == positive)
    return float(2 * right / both) if both else 0.0


def _correlation(of: Callable[..., tuple[float, float]], said: Numbers, true: Numbers) -> float:
    if len(set(said)) < 2 or len(set(true)) < 2:
        return math.nan
    return float(of(said, true)[0])
