"""Compares the memory plan with measured peaks: Llama-3-8B's shape, four groups, the deepest stage.

The measured value covers the entire process on the GPU: the peak reserved by torch's allocator, plus the context.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchlib.random_base import SHAPES

from gpu.attention_choice import best_attention
from gpu.card import Device
from gpu.points import Points
from gpu.scene import Scene
from gpu.stage_lab import Setup, StageLab, merged, texts


def run(points: Points, scene: Scene) -> None:
    device, work, dry = scene.device, scene.work, scene.dry
    tokens = 512 if dry else 8192
    plain = Setup(
        SHAPES["tiny"] if dry else SHAPES["8b"],
        slices=4,
        batch_records=8,
        max_tokens=tokens,
        micro_batch_tokens=tokens,
        attention=best_attention(device),
        norms=device.fastest_norms,
        hidden_states="recompute",
    )
    settings = {
        "ZeRO 0": plain,
        "ZeRO 0, checkpointing": replace(plain, gradient_checkpointing=True),
        "ZeRO 3, checkpointing": replace(plain, gradient_checkpointing=True, zero_stage=3),
        "ZeRO 2": replace(plain, zero_stage=2, micro_batch_tokens=tokens // 2),
        "ZeRO 3": replace(plain, zero_stage=3, micro_batch_tokens=tokens // 2),
    }
    for name, setup in settings.items():
        points.measure(name, partial(_peak, setup, device, work / name.replace(" ", "-")))
    points.skip("8 bit", "a base is quantized while its folder is loaded, but these weights are created on the GPU")


def _peak(setup: Setup, device: Device, work: Path) -> dict[str, Any]:
    lab = StageLab(setup, device, work)
    try:
        # The parents are trained without records; their adapters have the same size.
        *above, deepest = lab.jobs("memory", ())
        for job in above:
            lab.train(job)
        eighth = setup.micro_batch_tokens // 8
        full = lab.put(texts([eighth - 2] * 16), setup.slices - 1)  # two packs, as full as possible
        deepest = replace(deepest, slices=(*deepest.slices[:-1], full))
        times = lab.time(deepest)
        return merged(times, total_bytes=times.peak.total, measured_over_planned=times.peak.total / times.planned_bytes)
    finally:
        lab.close()
