"""Computes TOFU's metrics from losses, as its paper and code define them (arXiv 2401.06121).

In: mean losses per token (nats) of the correct answer, its paraphrase and P wrong answers to each of N questions, and
ROUGE-L recalls. Out: truth ratios, forget quality, model utility, extraction, membership AUC. Pure: numpy and scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import hmean, ks_2samp, rankdata


@dataclass(frozen=True)
class AnswerLosses:
    """Of one set of questions. Sets without paraphrases have the right answer in their place."""

    right_N: np.ndarray
    paraphrased_N: np.ndarray
    wrong_N_P: np.ndarray
    recall_N: np.ndarray
    """ROUGE-L recall of the greedy answer."""


def token_loss(logits_T_V: np.ndarray, labels_T: Sequence[int]) -> float:
    """Mean negative log-likelihood of the labels that are not -100; position t predicts label t + 1."""
    losses = []
    for logits_V, label in zip(np.asarray(logits_T_V, np.float64)[:-1], labels_T[1:], strict=True):
        if label != -100:
            shifted = logits_V - logits_V.max()
            losses.append(float(np.log(np.exp(shifted).sum()) - shifted[label]))
    return float(np.mean(losses))


def truth_ratios(losses: AnswerLosses) -> np.ndarray:
    """exp(mean wrong loss - paraphrased loss): above 1 where the model prefers the truth. [N]"""
    return np.exp(losses.wrong_N_P.mean(axis=1) - losses.paraphrased_N)


def forget_quality(model: AnswerLosses, retrained: AnswerLosses) -> float:
    """p-value of the two-sample KS test between the truth ratios of the model and of a retraining; 1: the same."""
    return float(ks_2samp(truth_ratios(model), truth_ratios(retrained)).pvalue)


def model_utility(
    retain: AnswerLosses, real_authors: AnswerLosses, world_facts: AnswerLosses
) -> tuple[float, dict[str, float]]:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio on the three sets, and the nine parts."""
    parts: dict[str, float] = {}
    for name, losses in (("retain", retain), ("real authors", real_authors), ("world facts", world_facts)):
        right = np.exp(-losses.right_N)
        if name != "retain":  # among the answers offered
            right = right / (right + np.exp(-losses.wrong_N_P).sum(axis=1))
        parts[f"probability, {name}"] = float(right.mean())
        parts[f"ROUGE, {name}"] = float(losses.recall_N.mean())
        parts[f"truth ratio, {name}"] = float(np.maximum(0, 1 - 1 / truth_ratios(losses)).mean())
    values = list(parts.values())
    return (float(hmean(values)) if min(values) > 0 else 0.0), parts


def rouge_l_recall(answer: str, truth: str) -> float:
    """Longest common subsequence of lower-case words over the words of the truth. Without stemming."""
    said, true = _words(answer), _words(truth)
    if not true:
        return 0.0
    best = np.zeros(len(said) + 1, int)
    for word in true:
        before = best.copy()
        for at, other in enumerate(said, 1):
            best[at] = before[at - 1] + 1 if word == other else max(best[at - 1], before[at])
    return float(best[-1]) / len(true)


def membership_auc(members: Sequence[float], others: Sequence[float]) -> float:
    """Chance that a member's loss is below another's: 0.5 when loss tells nothing; ties count half."""
    ranks = rankdata(np.concatenate([members, others]))
    count = len(members)
    above = ranks[:count].sum() - count * (count + 1) / 2
    return float(1 - above / (count * len(others)))


def _words(text: str) -> list[str]:
    return "".join(char.lower() if char.isalnum() else " " for char in text).split()
