"""Measures the rates of the GPU, and whether the engine's bits repeat on it.

Rates of bfloat16 products (square, and with the models' shapes), of copies, and of the collectives in a group of one
rank. Then two trainers train the same stage of a tiny model, whose bits must be equal.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchlib.matmul import measure
from benchlib.random_base import SHAPES
from benchlib.tiny_base import tiny_base

from gpu.attention_choice import best_attention
from gpu.card import Device
from gpu.points import Points
from gpu.scene import Scene
from gpu.stage_lab import Setup, StageLab, like_alpaca
from s3t_ray.config.base_model import read_shape
from s3t_ray.config.schema import ModelShape


def run(points: Points, scene: Scene) -> None:
    device, work, dry = scene.device, scene.work, scene.dry
    shapes = {"tiny": SHAPES["tiny"]} if dry else {"13b": SHAPES["13b"], "8b": SHAPES["8b"]}
    seconds = 0.05 if dry else 0.8
    for name, shape in shapes.items():
        points.measure(f"products {name}", partial(_rates, shape, 64 if dry else 8192, seconds, device))
    points.measure("copy", lambda: _copy(device, 1 << 20 if dry else 1 << 30, seconds))
    points.measure("replay", lambda: _replay(device, work, dry))
    points.measure("a base from its files", lambda: _from_files(device, work))
    points.measure("collectives of one rank", lambda: _collectives(device))


def _rates(shape: ModelShape, tokens: int, seconds: float, device: Device) -> dict[str, float]:
    found = asdict(measure(shape, tokens, tokens, seconds, device.kind, device.precision))
    device.release()
    return found


def _copy(device: Device, numbers: int, seconds: float) -> dict[str, float]:
    """Bytes read and written per second, on the device and from pinned memory to it."""
    import torch

    here = torch.rand(numbers, device=device.kind)
    there = torch.empty_like(here)
    pinned = torch.empty(numbers // 4, pin_memory=device.on_gpu)
    inside = device.milliseconds(lambda: there.copy_(here), seconds)
    across = device.milliseconds(lambda: there[: len(pinned)].copy_(pinned, non_blocking=True), seconds)
    return {
        "bytes_per_second": 8 * numbers / (inside / 1000),
        "pinned_to_device_bytes_per_second": 4 * len(pinned) / (across / 1000),
    }


def _replay(device: Device, work: Path, dry: bool) -> dict[str, Any]:
    """Train one stage with two trainers in their own folders, and again with the second: all digests must be equal."""
    plain = Setup(SHAPES["tiny"], slices=2, batch_records=4, micro_batch_tokens=512)
    fast = replace(plain, attention=best_attention(device), norms=device.fastest_norms)
    setups = {f"{each.attention}, {each.norms} norms": each for each in (plain, fast)}
    digests: dict[str, list[str]] = {}
    for name, setup in setups.items():
        found = digests[name] = []
        for turn in range(2):
            lab = StageLab(setup, device, work / f"{setup.attention}-{setup.norms}-{turn}")
            first, second = lab.jobs("replay", like_alpaca(8 if dry else 32))
            lab.train(first)
            found.append(lab.train(second))
            if turn:
                found.append(lab.train(lab.again(second, "again")))
            lab.close()
    return {"equal": all(len(set(each)) == 1 for each in digests.values()), "digests": digests}


def _from_files(device: Device, work: Path) -> dict[str, Any]:
    """Load a tiny base from its files, as real ones are: on which device it is, and whether it learns."""
    base = tiny_base(work / "files", 4)
    setup = Setup(read_shape(base), slices=2, rank=8, batch_records=4, epochs=3, max_tokens=256)
    lab = StageLab(setup, device, work / "from-files", base)
    contents = [json.dumps({"instruction": f"say {number}", "input": "", "output": "a b c d"}) for number in range(8)]
    times = lab.time(lab.jobs("files", contents)[0])
    lab.close()
    return {"load_seconds": lab.load_seconds, "first_loss": times.first_loss, "last_loss": times.last_loss}


def _collectives(device: Device) -> dict[str, Any]:
    """A sum over the engine's group on the device: NCCL with one rank."""
    import torch
    import torch.distributed as dist

    from s3t_ray.train.ranks import join

    join(0, 1, None, int(device.on_gpu))  # the engine's group, if a trainer of this process has already joined
    one = torch.ones(1 << 20, device=device.kind)
    milliseconds = device.milliseconds(lambda: dist.all_reduce(one), 0.2)
    return {"backend": dist.get_backend(), "ones": float(one[0]) == 1.0, "all_reduce_of_4_mib_ms": milliseconds}
