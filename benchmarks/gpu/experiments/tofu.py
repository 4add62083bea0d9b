"""Trains all of TOFU on SmolLM2-135M: five shards of four slices, one sequence per shard, three epochs.

Needs the model's folder and TOFU's pairs (`--base`, `--records`) on the machine. A dry run generates both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter

from benchlib.tiny_base import tiny_base

from gpu.attention_choice import best_attention
from gpu.card import Device
from gpu.points import Points
from gpu.scene import Scene
from gpu.stage_lab import NO_SECRET, Setup, StageLab, texts
from s3t_ray.config.base_model import read_shape
from s3t_ray.train.job import Progress, StageJob

SHARDS, SLICES, EPOCHS = 5, 4, 3


@dataclass(frozen=True)
class Run:
    """Results of a complete training of all shards."""

    records: int
    stages: int
    tokens: int
    seconds: float  # all stages, including reading, hidden states and publishing
    tokens_per_second: float
    first_loss: float  # mean over shards: first step of the first stage
    last_loss: float  # mean over shards: last step of the last stage
    replay_equal: bool  # whether one stage, trained again, has equal bytes


def run(points: Points, scene: Scene) -> None:
    base, contents = _given(scene)
    if base is None:
        points.skip("tofu", "the weights of SmolLM2-135M and the records are missing: give --base and --records")
        return
    points.measure("tofu", lambda: _run(base, contents, scene.device, scene.work))


def _given(scene: Scene) -> tuple[Path | None, list[str]]:
    if scene.dry:
        return tiny_base(scene.work / "given", SLICES), texts([12 + number % 9 for number in range(SHARDS * SLICES)])
    if scene.base is None or scene.records is None:
        return None, []
    rows = map(json.loads, scene.records.read_text().splitlines())
    return scene.base, [
        json.dumps({"instruction": row["question"], "input": "", "output": row["answer"]}) for row in rows
    ]


def _run(base: Path, contents: list[str], device: Device, work: Path) -> Run:
    setup = Setup(
        read_shape(base),
        slices=SLICES,
        rank=16,
        alpha=32,
        batch_records=32,
        epochs=EPOCHS,
        max_tokens=512,
        attention=best_attention(device),
    )
    lab = StageLab(setup, device, work, base)
    first: list[float] = []
    last: list[float] = []
    tokens, stages = 0, 0
    began = perf_counter()
    chain: list[StageJob] = []
    for shard in range(SHARDS):
        own = contents[shard::SHARDS]
        pieces = [lab.put(own[index::SLICES], index) for index in range(SLICES)]
        names = [f"{shard}-{depth}" for depth in range(1, SLICES + 1)]
        chain = [
            StageJob(names[at], "kit", "b" * 64, shard, tuple(pieces[: at + 1]), tuple(names[:at]), NO_SECRET)
            for at in range(SLICES)
        ]
        results = [lab.trainer.train(job, _ignore, _never) for job in chain]
        first += [loss for loss in (results[0].first_loss,) if loss is not None]
        last += [loss for loss in (results[-1].last_loss,) if loss is not None]
        tokens += sum(result.tokens for result in results)
        stages += len(results)
    seconds = perf_counter() - began
    equal = lab.train(lab.again(chain[-1], "again")) == results[-1].adapter_sha256
    lab.close()
    return Run(len(contents), stages, tokens, seconds, tokens / seconds, fmean(first), fmean(last), equal)


def _ignore(_: Progress) -> None:
    return


def _never() -> bool:
    return False
