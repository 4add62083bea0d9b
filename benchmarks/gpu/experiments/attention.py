"""Compares attention within the records of a pack, forward and backward, with Llama-2-13B's heads.

One call per record on slices (the engine's former way), one call per record on a split, torch's variable-length kernel
on the entire pack, and one call with a mask; with and without deterministic algorithms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from gpu.card import Device
from gpu.points import Points
from gpu.scene import Scene

HEADS, SIZE = 40, 128


def run(points: Points, scene: Scene) -> None:
    device, dry = scene.device, scene.dry
    packs = (256,) if dry else (8192, 16384)
    records = (64,) if dry else (64, 181, 512, 2048)
    for pack in packs:
        for record in records:
            lengths = [record] * (pack // record)
            for deterministic in (True, False):
                bits = "deterministic" if deterministic else "free"
                for way, call in _ways(lengths, device, dry).items():
                    points.measure(
                        f"{pack} tokens in records of {record}, {way}, {bits}",
                        partial(_time, call, device, deterministic, dry),
                    )


def _ways(lengths: list[int], device: Device, dry: bool) -> dict[str, Callable[[], Any]]:
    import torch

    from s3t_ray.train.attention import packed_sdpa, packed_varlen

    heads = 2 if dry else HEADS
    tokens = sum(lengths)
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    segments = tuple((end - length, end) for end, length in zip(ends, lengths, strict=True))
    kind = getattr(torch, device.precision)
    # As a model creates them: [1, T, heads, head size], transposed.
    leaves = [torch.randn(1, tokens, heads, SIZE, device=device.kind, dtype=kind) for _ in range(3)]
    gradient = torch.randn(1, tokens, heads, SIZE, device=device.kind, dtype=kind)
    module: Any = SimpleNamespace(num_key_value_groups=1, is_causal=True)

    def both(forward: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            inputs = [leaf.detach().requires_grad_() for leaf in leaves]
            forward(*(each.transpose(1, 2) for each in inputs)).backward(gradient)
            return inputs

        return call

    def slices(q: Any, k: Any, v: Any) -> Any:
        parts = [
            packed_sdpa(module, q[:, :, start:end], k[:, :, start:end], v[:, :, start:end], None)[0]
            for start, end in segments
        ]
        return torch.cat(parts, dim=1)

    def masked(q: Any, k: Any, v: Any) -> Any:
        owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device.kind)
        mask = (owner[:, None] == owner[None, :]).tril()
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)

    ways = {
        "slices": both(slices),
        "split": both(lambda q, k, v: packed_sdpa(module, q, k, v, None, segments)[0]),
    }
    if device.on_gpu:
        ways["flash_varlen"] = both(lambda q, k, v: packed_varlen(module, q, k, v, None, segments)[0])
    if tokens <= 8192:  # a 16,384 x 16,384 mask is 256 MiB, and the kernel needs it as numbers
        ways["mask"] = both(masked)
    return ways


def _time(call: Callable[[], Any], device: Device, deterministic: bool, dry: bool) -> dict[str, Any]:
    import torch

    torch.use_deterministic_algorithms(deterministic, warn_only=False)
    try:
        first = [leaf.grad.clone() for leaf in call()]
        equal = all(torch.equal(one, leaf.grad) for one, leaf in zip(first, call(), strict=True))
        return {"milliseconds": device.milliseconds(call, 0.05 if dry else 0.25), "repeats to the bit": equal}
    finally:
        torch.use_deterministic_algorithms(False)
