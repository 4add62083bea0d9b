"""Measures Hugging Face's Trainer with PEFT on the workload of `engine_8b.py`, and the engine's speedup.

Runs in its own process, without a worker group or deterministic kernels: the Trainer's best settings.
"""

from __future__ import annotations

from functools import partial

from gpu import hf_trainer
from gpu.points import Points
from gpu.scene import Scene
from gpu.workload_8b import workloads


def run(points: Points, scene: Scene) -> None:
    for workload in workloads(scene.dry):
        name = workload.name
        folder = scene.work / name.replace(" ", "-")
        points.measure(
            name,
            partial(hf_trainer.train, workload.setup, scene.device, folder, workload.contents, workload.device_batch),
        )
        ours = points.beside("engine_8b", name)
        if points.has(name) and ours is not None:
            ratio = ours["tokens_per_second"] / points.get(name)["tokens_per_second"]
            points.measure(f"engine over Trainer, {name}", partial(dict, ratio=ratio))
