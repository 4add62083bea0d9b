"""Measures answers from ensembles of 2 and 5 shards and from the base alone, with Llama-3-8B's shape.

1, 8 and 32 concurrent requests, each from its own thread, through the ensemble's own `generate`. The adapters cover all
layers, in two groups: full depth is the most expensive case.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchlib.random_base import SHAPES

from gpu.card import Device
from gpu.points import Points
from gpu.random_weights import made_on
from gpu.scene import Scene
from gpu.stage_lab import Setup, StageLab

SHARDS = 5


def run(points: Points, scene: Scene) -> None:
    device, work, dry = scene.device, scene.work, scene.dry
    from s3t_ray.ensemble.ensemble import Ensemble

    requests = (1, 4) if dry else (1, 8, 32)
    new_tokens, prompt_tokens = (4, 16) if dry else (16, 128)
    setup = Setup(SHAPES["tiny"] if dry else SHAPES["8b"], slices=2, rank=8, alpha=16, hidden_states="recompute")
    keys = [f"{members}, {count} requests" for members in _MEMBERS for count in requests]
    if points.has(*keys):
        return
    chains = _publish(setup, device, work)
    config = setup.config(device, work)
    config = config.model_copy(update={"shards": SHARDS})
    with made_on(device.kind):
        ensemble = Ensemble(config, work / "base", _store(config), threads=None)
    prompts = [[(7 * number + place) % 250 + 3 for place in range(prompt_tokens)] for number in range(max(requests))]
    for version, (name, members) in enumerate(_MEMBERS.items(), start=1):
        ensemble.set_live(version, {shard: chains[shard] for shard in range(members)})
        ensemble.generate(prompts[0], 2)
        for count in requests:
            points.measure(
                f"{name}, {count} requests",
                partial(_answer, ensemble, prompts[:count], new_tokens, device),
            )


_MEMBERS = {"base alone": 0, "2 shards": 2, "5 shards": 5}


def _publish(setup: Setup, device: Device, work: Path) -> list[tuple[str, ...]]:
    """Publish untrained stages of five shards; their adapters have the usual size and cost."""
    lab = StageLab(setup, device, work)
    chains = []
    for shard in range(SHARDS):
        jobs = [replace(job, shard=shard) for job in lab.jobs(f"shard-{shard}", ())]
        for job in jobs:
            lab.train(job)
        chains.append(tuple(job.stage_id for job in jobs))
    lab.close()
    return chains


def _store(config: Any) -> Any:
    from s3t_ray.store.store import Store

    return Store.open(config.storage.uri)


def _answer(ensemble: Any, prompts: list[list[int]], new_tokens: int, device: Device) -> dict[str, float]:
    device.reset_peak()
    began = device.clock()
    with ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(lambda prompt: ensemble.generate(prompt, new_tokens), prompts))
    seconds = device.clock() - began
    tokens = sum(len(answer.tokens) for answer in answers)
    return {
        "tokens_per_second": tokens / seconds,
        "milliseconds_per_token_and_request": 1000 * seconds * len(prompts) / tokens,
        "seconds": seconds,
        "peak_bytes": device.peak().reserved,
    }
