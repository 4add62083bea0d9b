"""The metrics, against values worked out by hand and against their definitions in other words."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from s3t_ray.ensemble.task_metrics import TASK_METRICS, accuracy, f1, f1_macro, matthews, pearson, spearman

SAID, TRUE = [1, 1, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0]  # 2 right of class 1, 1 false, 1 missed, 2 right of class 0


def test_by_hand() -> None:
    assert accuracy(SAID, TRUE) == pytest.approx(4 / 6)
    assert f1(SAID, TRUE) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert f1_macro(SAID, TRUE) == pytest.approx((4 / 6 + 4 / 6) / 2)
    assert matthews(SAID, TRUE) == pytest.approx((2 * 2 - 1 * 1) / math.sqrt(3 * 3 * 3 * 3))
    assert f1([0, 0], [0, 0]) == 0.0 and f1([1, 1], [0, 1]) == pytest.approx(2 / 3)
    assert f1_macro([0, 2, 2], [0, 2, 1]) == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_a_correlation_with_a_constant_is_not_defined() -> None:
    assert matthews([1, 1, 1], [0, 1, 0]) == 0.0
    assert math.isnan(pearson([1.5, 1.5], [0.0, 1.0])) and math.isnan(spearman([0.0, 1.0], [2.0, 2.0]))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_matthews_is_the_correlation_of_the_class_indicators(classes: int) -> None:
    dice = random.Random(classes)
    for _ in range(20):
        true = [dice.randrange(classes) for _ in range(40)]
        said = [label if dice.random() < 0.5 else dice.randrange(classes) for label in true]
        x, y = (np.eye(classes)[labels] for labels in (said, true))
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        assert matthews(said, true) == pytest.approx((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


def test_values() -> None:
    said, true = [0.1, 0.4, 0.2, 0.9], [1.0, 2.0, 3.0, 4.0]
    assert pearson(said, true) == pytest.approx(np.corrcoef(said, true)[0, 1])
    assert spearman(said, true) == pytest.approx(np.corrcoef([1, 3, 2, 4], true)[0, 1])
    assert spearman([1.0, 10.0, 100.0], [1.0, 2.0, 3.0]) == pytest.approx(1.0)
    assert all(not math.isnan(metric([0, 1, 1], [0, 1, 0])) for metric in TASK_METRICS.values())
