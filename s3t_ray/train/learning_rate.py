"""Learning rate by step: warm-up, then constant, linear or cosine. Pure."""

from __future__ import annotations

from math import ceil, cos, pi

from s3t_ray.config.schema import Optimizer


def learning_rate(step: int, steps: int, optimizer: Optimizer) -> float:
    """The learning rate of step `step` (0-based) out of `steps`.

    The warm-up covers ceil(warmup * steps) steps, and its first rate is above 0. A decaying schedule would reach 0
    one step after the last, so every step has a positive rate.
    """
    rising = ceil(optimizer.warmup * steps)
    if step < rising:
        return optimizer.lr * (step + 1) / rising
    if optimizer.schedule == "constant":
        return optimizer.lr
    done = (step - rising) / (steps - rising)
    return optimizer.lr * ((1 - done) if optimizer.schedule == "linear" else 0.5 * (1 + cos(pi * done)))
