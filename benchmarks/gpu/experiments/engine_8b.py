"""Llama-3-8B's shape at full depth, packs of 4,096 tokens, beside others on the same card.

NVIDIA published 12,473 tokens/s at 402 TFLOP/s for BF16 LoRA of Llama-3-8B on one H100 (NeMo Automodel). Hugging
Face's Trainer with PEFT is measured here, in the same run: on records of 4,096 tokens, where it pads nothing, and on
records of mixed lengths.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchlib.random_base import SHAPES

from gpu import hf_trainer
from gpu.attention_choice import best_attention
from gpu.card import Device
from gpu.points import Points
from gpu.scene import Scene
from gpu.stage_lab import Setup, StageLab, like_alpaca, merged, texts

PUBLISHED = {"tokens_per_second": 12_473, "flops_per_second": 402e12, "source": "NVIDIA NeMo Automodel, one H100"}
STEPS = 5


def run(points: Points, scene: Scene) -> None:
    device, work, dry = scene.device, scene.work, scene.dry
    long = 96 if dry else 4096
    setup = Setup(
        SHAPES["tiny"] if dry else SHAPES["8b"],
        slices=1,
        batch_records=4,
        max_tokens=long,
        micro_batch_tokens=long,
        attention=best_attention(device),
        norms=device.fastest_norms,
    )
    # The last token of a record is predicted and never fed, so a record fills a pack to one token.
    full, mixed = texts([long - 2] * 4 * STEPS), like_alpaca((4 if dry else 32) * STEPS)
    short = replace(setup, batch_records=4 if dry else 32, max_tokens=512)
    points.measure("published", lambda: PUBLISHED)
    for name, chosen, contents in (("full packs", setup, full), ("mixed lengths", short, mixed)):
        points.measure(f"ours, {name}", partial(_ours, chosen, device, work, contents))
    for name, chosen, contents, batch in (
        ("full packs", setup, full, 1),
        ("mixed lengths", short, mixed, 2 if dry else 8),
    ):
        points.measure(
            f"Hugging Face, {name}",
            partial(hf_trainer.train, chosen, device, work / "hf", contents, batch),
        )
        points.measure(f"ours over Hugging Face, {name}", partial(_ratio, points, name))


def _ours(setup: Setup, device: Device, work: Path, contents: list[str]) -> dict[str, Any]:
    lab = StageLab(setup, device, work / f"ours-{setup.max_tokens}")
    try:
        (job,) = lab.jobs("whole", contents)
        times = lab.time(job)
        return merged(times, measured_over_planned=times.peak.total / times.planned_bytes)
    finally:
        lab.close()


def _ratio(points: Points, name: str) -> dict[str, float]:
    if not points.has(f"ours, {name}", f"Hugging Face, {name}"):
        raise RuntimeError("one of the two failed")
    ours, theirs = (points.get(f"{whose}, {name}")["tokens_per_second"] for whose in ("ours", "Hugging Face"))
    return {"ratio": ours / theirs}
