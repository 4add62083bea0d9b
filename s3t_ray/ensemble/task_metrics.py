"""How well an ensemble classifies or scores records: the metrics of GLUE and SuperGLUE.

In: predictions and true labels, record by record: classes by number, or values. Out: one number per metric; NaN if it
is not defined, such as a correlation with a constant. Definitions are those of scikit-learn and scipy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Numbers = Sequence[float]


def accuracy(said: Numbers, true: Numbers) -> float:
    """Share of records that are judged right."""
    return float(np.mean(np.asarray(said) == np.asarray(true)))


def f1(said: Numbers, true: Numbers) -> float:
    """F1 of class 1, the second of two; 0 where the class is neither said nor true."""
    return _f1_of(1, np.asarray(said), np.asarray(true))


def f1_macro(said: Numbers, true: Numbers) -> float:
    """Mean of the F1 of each class that is said or true."""
    found, wanted = np.asarray(said), np.asarray(true)
    return float(np.mean([_f1_of(each, found, wanted) for each in np.union1d(found, wanted)]))


def matthews(said: Numbers, true: Numbers) -> float:
    """Matthews' correlation, over any number of classes; 0 where one of the sides is constant."""
    classes, places = np.unique(np.concatenate([said, true]), return_inverse=True)
    table = np.zeros((len(classes), len(classes)))
    np.add.at(table, (places[: len(said)], places[len(said) :]), 1)
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), table.sum()
    spread = (total**2 - rows @ rows) * (total**2 - columns @ columns)
    return float((np.trace(table) * total - rows @ columns) / math.sqrt(spread)) if spread else 0.0


def pearson(said: Numbers, true: Numbers) -> float:
    """Correlation of the values."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, said, true)


def spearman(said: Numbers, true: Numbers) -> float:
    """Correlation of the values' ranks."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, said, true)


TASK_METRICS: Mapping[str, Callable[[Numbers, Numbers], float]] = {
    function.__name__: function for function in (accuracy, f1, f1_macro, matthews, pearson, spearman)
}
"""By the names that `task.metrics` takes."""


def _f1_of(positive: float, said: np.ndarray, true: np.ndarray) -> float:
    right = np.sum((said == positive) & (true == positive))
    both = np.sum(said == positive) + np.sum(true == positive)
    return float(2 * right / both) if both else 0.0


def _correlation(of: Callable[..., tuple[float, float]], said: Numbers, true: Numbers) -> float:
    if len(set(said)) < 2 or len(set(true)) < 2:
        return math.nan
    return float(of(said, true)[0])
