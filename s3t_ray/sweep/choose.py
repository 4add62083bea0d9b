"""Selects trials: computes the Pareto front, and writes a recommendation.

In: outcomes, and the requirements. Out: the Pareto-optimal trials, and a text. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from s3t_ray.sweep.objectives import Outcome


@dataclass(frozen=True)
class Need:
    """The requirements for a run: the deletions that it must tolerate, and the budget for its training."""

    deletions: int  # to tolerate without healing
    most_gpu_hours: float | None  # None: no limit
    tflops: float  # actual rate of a GPU, for example 40% of its peak

    def gpu_hours(self, flops: float) -> float:
        """The GPU hours for this number of FLOPs."""
        return flops / (self.tflops * 1e12) / 3600

    def affords(self, outcome: Outcome) -> bool:
        """Whether the first training is within the budget."""
        return self.most_gpu_hours is None or self.gpu_hours(outcome.forecast.training_flops) <= self.most_gpu_hours


def objectives(outcome: Outcome, deletions: int) -> tuple[float, ...]:
    """The objectives to minimize: training cost, storage, negative deletion rate, and the loss (or negative depth)."""
    loss = outcome.loss_after(deletions)
    return (
        outcome.forecast.training_flops,
        float(outcome.forecast.storage_bytes),
        -outcome.forecast.deletions_until_dead,
        -outcome.depth_share_after(deletions) if loss is None else loss,
    )


def front(outcomes: Sequence[Outcome], values: Callable[[Outcome], tuple[float, ...]]) -> tuple[Outcome, ...]:
    """The Pareto-optimal outcomes for `values` (lower is better), in their original order."""
    scored = [(outcome, values(outcome)) for outcome in outcomes]
    return tuple(one for one, own in scored if not any(_beats(other, own) for _, other in scored))


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def best(outcomes: Sequence[Outcome], need: Need) -> Outcome | None:
    """The affordable trial with the lowest loss after the deletions (or the greatest depth, if not trained).

    Ties go to the cheapest. None: no trial is affordable.
    """
    within = [outcome for outcome in outcomes if need.affords(outcome)]

    def key(outcome: Outcome) -> tuple[float, float]:
        loss = outcome.loss_after(need.deletions)
        quality = -outcome.depth_share_after(need.deletions) if loss is None else loss
        return quality, outcome.forecast.training_flops

    return min(within, key=key, default=None)


def recommendation(outcomes: Sequence[Outcome], need: Need) -> str:
    """A recommendation in a few sentences."""
    limit = "" if need.most_gpu_hours is None else f" and {need.most_gpu_hours:,.3g} GPU hours"
    plural = "" if need.deletions == 1 else "s"
    asked = f"For {need.deletions} deletion{plural} without healing{limit} (at {need.tflops:g} TFLOP/s per GPU)"
    chosen = best(outcomes, need)
    if chosen is None:
        cheapest = min(outcomes, key=lambda outcome: outcome.forecast.training_flops)
        takes = need.gpu_hours(cheapest.forecast.training_flops)
        return (
            f"{asked}, no trial is cheap enough: the cheapest, {cheapest.label}, takes {takes:,.3g} GPU hours. "
            "Allow more GPU hours, or try smaller budgets and fewer epochs."
        )
    sentences = [f"{asked}, use {chosen.label}: {_words(chosen, need)}."]
    cheaper = [
        outcome
        for outcome in outcomes
        if outcome.forecast.training_flops <= chosen.forecast.training_flops / 2 and outcome is not chosen
    ]
    if cheaper:
        other = best(cheaper, need)
        if other is not None:
            sentences.append(f"At half the cost or less, the best is {other.label}: {_words(other, need)}.")
    dearer = [outcome for outcome in outcomes if not need.affords(outcome)]
    better = best([chosen, *dearer], Need(need.deletions, None, need.tflops))
    if better is not None and better is not chosen:
        sentences.append(f"With a larger budget, use {better.label}: {_words(better, need)}.")
    if chosen.forecast.deletions_until_dead < need.deletions:
        sentences.append(
            f"Its shards are expected to be dead after {chosen.forecast.deletions_until_dead:.0f} deletions: heal in "
            "between (requeue), or use more shards."
        )
    return "\n".join(sentences)


def _words(outcome: Outcome, need: Need) -> str:
    forecast = outcome.forecast
    parts = [
        f"{outcome.depth_share_after(need.deletions):.0%} of its depth remains",
        f"every shard is dead after {forecast.deletions_until_dead:.0f} deletions",
        f"{need.gpu_hours(forecast.training_flops):,.3g} GPU hours",
        f"{forecast.storage_bytes / 1e9:,.3g} GB",
    ]
    loss = outcome.loss_after(need.deletions)
    if loss is not None and outcome.measured is not None:
        parts.insert(0, f"held-out loss {outcome.measured.loss_by_depth[-1]:.3f}, and {loss:.3f} after the deletions")
    return ", ".join(parts)
