"""Measures the rate of matrix products on this machine, at a model's own shapes: the reference for a stage's FLOPs.

In: a model's shape and the length of a pack. Out: FLOP per second (of CPU time, on a CPU). Times each linear module of
a layer as the engine must compute it, forward (x W^T) and for the gradient of its input (g W), from weights that are
not in the cache. The rate is that of an entire layer. Larger or squarer products would be faster, but the model has
none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from s3t_ray.config.schema import ModelShape
from s3t_ray.plan.work import linear_sizes


@dataclass(frozen=True)
class MatmulRate:
    """FLOP per second; on a CPU, per second of one thread."""

    layer: float  # all linear modules of a layer, forward and backward
    square: float  # 1024 squared on a CPU, 8192 squared on a GPU, for comparison
    head: float  # a block of the vocabulary head, forward and backward


def measure(
    shape: ModelShape, tokens: int, labelled: int, seconds: float, device: str = "cpu", precision: str = "float32"
) -> MatmulRate:
    """Rates for packs of `tokens`, of which `labelled` have a loss; about three times `seconds` long."""
    import torch

    kind = {"device": device, "dtype": getattr(torch, precision)}

    def clock() -> float:
        if device == "cpu":
            return time.thread_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    layers = 4  # several copies, so that a weight has left the cache when it is used again
    sizes = [size for _ in range(layers) for size in linear_sizes(shape).values()]
    weights = [torch.randn(outputs, inputs, **kind) for inputs, outputs in sizes]
    wide = {inner: torch.randn(tokens, inner, **kind) for size in sizes for inner in size}

    def layer() -> float:
        flops = 0.0
        for weight in weights:
            outputs, inputs = weight.shape
            torch.nn.functional.linear(wide[inputs], weight)
            torch.mm(wide[outputs], weight)
            flops += 4.0 * tokens * inputs * outputs
        return flops

    side = 1024 if device == "cpu" else 8192
    left, right = torch.randn(side, side, **kind), torch.randn(side, side, **kind)

    def square() -> float:
        torch.mm(left, right)
        return 2.0 * side**3

    rows = max(1, min(labelled, (1 << 24) // shape.vocabulary))  # block size of the engine
    vocabulary = torch.randn(shape.vocabulary, shape.hidden, **kind)
    states, scores = torch.randn(rows, shape.hidden, **kind), torch.empty(rows, shape.vocabulary, **kind)

    def head() -> float:
        torch.mm(states, vocabulary.t(), out=scores)
        torch.mm(scores, vocabulary)
        return 4.0 * rows * shape.hidden * shape.vocabulary

    return MatmulRate(*(_rate(call, seconds, clock) for call in (layer, square, head)))


def _rate(call: Callable[[], float], seconds: float, clock: Callable[[], float]) -> float:
    call()
    done, began = 0.0, clock()
    while clock() - began < seconds:
        done += sum(call() for _ in range(4))  # several per reading of the clock, which waits for a GPU
    return done / (clock() - began)
