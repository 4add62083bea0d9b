"""Measures Llama-2-13B's shape, bfloat16, rank 32, four layer groups: every depth, and the cost of equal bits.

Records of mixed lengths as in Alpaca, packs of 4,096 tokens, stored hidden states: the engine in its ready-made
configuration, with one kernel for a pack's attention and one per norm if the GPU supports them. Also measures the plain
kernels, which run anywhere. The share is relative to the rate of the layer's own matrix products, measured in the same
process.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial

from benchlib.matmul import measure
from benchlib.random_base import SHAPES

from gpu.attention_choice import best_attention
from gpu.card import Device
from gpu.points import Points
from gpu.scene import Scene
from gpu.stage_lab import Setup, StageLab, like_alpaca, merged, without_determinism
from s3t_ray.train.job import StageJob

STEPS = 5


def run(points: Points, scene: Scene) -> None:
    device, work, dry = scene.device, scene.work, scene.dry
    setup = Setup(
        SHAPES["tiny"] if dry else SHAPES["13b"],
        slices=2 if dry else 4,
        batch_records=4 if dry else 32,
        micro_batch_tokens=512 if dry else 4096,
        attention=best_attention(device),
        norms=device.fastest_norms,
    )
    points.measure("rate", lambda: _rate(setup, device, dry))
    if not points.has("rate"):
        return
    rate = points.get("rate")["layer"]
    contents = like_alpaca(setup.batch_records * STEPS)
    depths = range(1, setup.slices + 1)
    deepest = depths[-1]
    ours = [f"depth {depth}" for depth in depths]
    if not points.has(*ours, "replay", "no determinism, depth 1", f"no determinism, depth {deepest}"):
        lab = StageLab(setup, device, work / "ours")
        points.measure("load", lambda: {"seconds": lab.load_seconds, "peak": asdict(device.peak())})
        chain = lab.jobs("chain", contents)
        for job in chain:
            points.measure(f"depth {job.depth}", partial(_share, lab, job, rate))
            if points.has(f"depth {job.depth}") and not lab.store.exists(f"stages/{job.stage_id}/manifest.json"):
                lab.train(job)  # measured by an earlier call, but deeper stages need it
        points.measure("replay", lambda: _replay(lab, chain[0], points.get("depth 1")["adapter_sha256"]))
        for job in (chain[0], chain[-1]):
            with without_determinism():
                points.measure(f"no determinism, depth {job.depth}", partial(_share, lab, lab.again(job, "free"), rate))
        lab.close()
    plain = replace(setup, attention="sdpa", norms="eager")
    if setup == plain:
        points.skip("plain kernels, depth 1", "the plain kernels are the fastest that work here")
        return
    if not points.has("plain kernels, depth 1", f"plain kernels, depth {deepest}"):
        lab = StageLab(plain, device, work / "plain")
        for job in lab.jobs("chain", contents):
            if job.depth in (1, deepest):
                points.measure(f"plain kernels, depth {job.depth}", partial(_share, lab, job, rate))
            else:
                lab.train(job)
        lab.close()


def _rate(setup: Setup, device: Device, dry: bool) -> dict[str, float]:
    tokens = setup.micro_batch_tokens
    found = asdict(measure(setup.shape, tokens, tokens, 0.05 if dry else 0.7, device.kind, device.precision))
    device.release()
    return found


def _share(lab: StageLab, job: StageJob, rate: float) -> dict[str, object]:
    times = lab.time(job)
    return merged(
        times,
        share_of_rate=times.flops_per_token * times.tokens_per_second / rate,
        measured_over_planned=times.peak.total / times.planned_bytes,
    )


def _replay(lab: StageLab, job: StageJob, expected: str) -> dict[str, object]:
    return {"equal": lab.train(lab.again(job, "again")) == expected}
