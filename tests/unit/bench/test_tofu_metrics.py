"""TOFU's figures on fixed logits, against a computation by torch and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchlib.tofu_metrics import (
    AnswerLosses,
    forget_quality,
    membership_auc,
    model_utility,
    rouge_l_recall,
    token_loss,
    truth_ratios,
)


def losses(right: list[float], paraphrased: list[float], wrong: list[list[float]], recall: list[float]) -> AnswerLosses:
    return AnswerLosses(np.array(right), np.array(paraphrased), np.array(wrong), np.array(recall))


def test_the_loss_of_an_answer_is_that_of_torch_on_fixed_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(7, 11)) * 3
    labels = [-100, -100, -100, 4, 9, 0, 2]
    tensor = torch.tensor(logits[:-1])
    expected = torch.nn.functional.cross_entropy(tensor, torch.tensor(labels[1:]), ignore_index=-100)
    assert token_loss(logits, labels) == pytest.approx(float(expected), abs=1e-12)
    assert token_loss(logits + 1000, labels) == pytest.approx(float(expected), abs=1e-9)


def test_the_truth_ratio_compares_the_paraphrase_with_the_mean_wrong_answer() -> None:
    found = truth_ratios(losses([0], [1.0], [[2.0, 4.0]], [0]))
    assert found.tolist() == pytest.approx([math.exp(2.0)])


def test_forget_quality_is_1_for_the_same_model_and_small_for_another() -> None:
    random = np.random.default_rng(1)
    one = losses([0] * 40, list(random.normal(2, 0.3, 40)), random.normal(2, 0.3, (40, 5)).tolist(), [0] * 40)
    knows = AnswerLosses(one.right_N, one.paraphrased_N - 2, one.wrong_N_P, one.recall_N)
    assert forget_quality(one, one) == 1.0
    assert forget_quality(knows, one) < 1e-6


def test_utility_is_the_harmonic_mean_of_its_nine_parts() -> None:
    retain = losses([math.log(2)], [1.0], [[1.0 + math.log(4)] * 5], [0.5])
    options = losses([math.log(2)], [math.log(2)], [[math.log(4), math.log(4)]], [0.25])
    utility, parts = model_utility(retain, options, options)
    assert parts == pytest.approx(
        {
            "probability, retain": 0.5,
            "ROUGE, retain": 0.5,
            "truth ratio, retain": 0.75,
            "probability, real authors": 0.5,  # 1/2 among 1/2 + 1/4 + 1/4
            "ROUGE, real authors": 0.25,
            "truth ratio, real authors": 0.5,
            "probability, world facts": 0.5,
            "ROUGE, world facts": 0.25,
            "truth ratio, world facts": 0.5,
        }
    )
    assert utility == pytest.approx(9 / (4 * 2 + 1 / 0.5 + 1 / 0.75 + 2 * 4 + 1 / 0.5))
    worse = losses([1], [2.0], [[1.0]], [0.5])  # prefers the wrong answer
    assert model_utility(worse, options, options)[0] == 0.0


def test_rouge_recall_is_the_longest_common_subsequence() -> None:
    assert rouge_l_recall("the cat sat on a mat", "The cat on the mat.") == pytest.approx(4 / 5)
    assert rouge_l_recall("", "x") == 0.0
    assert rouge_l_recall("anything", "") == 0.0
    assert rouge_l_recall("b a", "a b") == 0.5


def test_membership_auc_is_the_chance_to_tell() -> None:
    assert membership_auc([1, 2], [3, 4]) == 1.0
    assert membership_auc([3, 4], [1, 2]) == 0.0
    assert membership_auc([1, 3], [2, 2]) == 0.5
    assert membership_auc([2], [2]) == 0.5
