"""Measures Llama-3-8B's shape at full depth, packs of 4,096 tokens, against the published rate of another engine.

NVIDIA published 12,473 tokens/s at 402 TFLOP/s for BF16 LoRA of Llama-3-8B on one H100 (NeMo Automodel).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from gpu.attention_choice import best_attention
from gpu.points import Points
from gpu.scene import Scene
from gpu.stage_lab import StageLab, merged
from gpu.workload_8b import Workload, workloads

PUBLISHED = {"tokens_per_second": 12_473, "flops_per_second": 402e12, "source": "NVIDIA NeMo Automodel, one H100"}


def run(points: Points, scene: Scene) -> None:
    points.measure("published", lambda: PUBLISHED)
    for workload in workloads(scene.dry):
        points.measure(workload.name, partial(_train, workload, scene))


def _train(workload: Workload, scene: Scene) -> dict[str, Any]:
    device = scene.device
    setup = replace(workload.setup, attention=best_attention(device), norms=device.fastest_norms)
    lab = StageLab(setup, device, scene.work / workload.name.replace(" ", "-"))
    try:
        (job,) = lab.jobs("whole", workload.contents)
        times = lab.time(job)
        return merged(times, measured_over_planned=times.peak.total / times.planned_bytes)
    finally:
        lab.close()
