"""Outcomes made up for the tests of the sweep room."""

from __future__ import annotations

from s3t_ray.sweep.objectives import Forecast, Measured, Outcome


def outcome(
    label: str,
    *,
    flops: float = 3.6e15,  # an hour at 1 TFLOP/s
    storage: int = 1000,
    deletions: float = 10.0,
    depth_after: tuple[float, ...] = (4.0, 3.0),
    losses: tuple[float, ...] | None = None,
) -> Outcome:
    forecast = Forecast(
        shards=2,
        slices=4,
        budget=1,
        order="cyclic",
        stages=8,
        deletions_until_dead=deletions,
        simulated_deletions=deletions,
        simulated_error=0.0,
        depth_after=depth_after,
        training_flops=flops,
        healing_flops=flops / 10,
        storage_bytes=storage,
        gpu_bytes=1,
    )
    return Outcome(label, "root", forecast, None if losses is None else measured(losses))


def measured(losses: tuple[float, ...]) -> Measured:
    began, ended = "2026-01-01T00:00:00.000+00:00", "2026-01-01T00:00:01.000+00:00"
    return Measured(losses, trained_stages=8, reused_stages=0, seconds=1.0, tokens=100, began=began, ended=ended)
