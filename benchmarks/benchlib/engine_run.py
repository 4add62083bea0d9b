"""Runs our engine on a complete course, without Ray: one process trains stage after stage.

    python -m benchlib.engine_run COURSE.json RUN.json

In: a Course, and the technique to leave out. Out: published stages in a store, and a PEFT folder per sequence. Leaves
out Ray, to compare training and not scheduling. Other benchmarks measure Ray's overhead.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from benchlib.course import Course
from s3t_ray.data.slices import Row, write_slice
from s3t_ray.store.store import Store
from s3t_ray.train.job import SliceInput, StageJob

Without = Literal["nothing", "stored hidden states", "packing", "labelled-only head"]


class EngineRun(BaseModel):
    """Where the run is stored, and which part of the engine is switched off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    without: Without = "nothing"
    stage: int | None = None  # train only this stage of the course: one process per stage
    engine: dict[str, Any] = {}  # overrides of its settings
    rank: int = 0  # one of engine.ranks, each in its own process
    meeting: str | None = None  # where the ranks meet


def prefixes(course: Course) -> list[tuple[int, tuple[int, ...]]]:
    """(shard, slices) of each stage to train, parents first; a shared stage occurs once."""
    found = {
        (shard, order[:depth]): None
        for shard in range(len(course.shards))
        for order in course.orders
        for depth in range(1, len(order) + 1)
    }
    return list(found)


def stage_name(shard: int, slices: tuple[int, ...]) -> str:
    return f"{shard}-{'.'.join(map(str, slices))}"


def put_slices(course: Course, store: Store, folder: Path) -> dict[tuple[int, int], SliceInput]:
    """Write every slice of the course to the store. Returns the inputs by (shard, slice)."""
    return {
        (shard, index): _put_slice(store, folder, shard, index, contents)
        for shard, slices in enumerate(course.shards)
        for index, contents in enumerate(slices)
    }


def _put_slice(store: Store, folder: Path, shard: int, index: int, contents: tuple[str, ...]) -> SliceInput:
    rows = [
        Row(f"{shard}-{index}-{number}", content, hashlib.sha256(content.encode()).digest())
        for number, content in enumerate(contents)
    ]
    file = write_slice(folder / f"{shard}-{index}.parquet", rows)
    path = f"slices/{shard}/{index}/{file.sha256}.parquet"
    store.upload(file.path, path)
    return SliceInput(index, path, file.sha256, file.sha256, file.rows, "5e" * 32)


def jobs(course: Course, inputs: dict[tuple[int, int], SliceInput]) -> Iterator[StageJob]:
    """The stages of the course as jobs for the engine."""
    for shard, slices in prefixes(course):
        parents = tuple(stage_name(shard, slices[:depth]) for depth in range(1, len(slices)))
        pieces = tuple(inputs[shard, index] for index in slices)
        yield StageJob(stage_name(shard, slices), "course", "b" * 64, shard, pieces, parents, "5e" * 32)


def train(course: Course, run: EngineRun) -> None:
    """Train the stages and export the sequences."""
    from benchlib.ablations import apply
    from s3t_ray.train.adapters import export_adapter
    from s3t_ray.train.trainer import Trainer

    engine = dict(run.engine)
    if run.without == "stored hidden states":
        engine["hidden_states"] = "recompute"
    apply(run.without)
    config = course.config(run.folder / "run", engine)
    store = Store.open(config.storage.uri)
    scratch = run.folder / f"scratch-{run.rank}"
    scratch.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, course.base, store, scratch, run.rank, config.engine.ranks, run.meeting)
    every = list(jobs(course, put_slices(course, store, scratch)))
    cpu, seconds = time.process_time(), 0.0
    for job in every if run.stage is None else [every[run.stage]]:
        seconds += trainer.train(job, lambda progress: None, lambda: False).seconds
    with (run.folder / f"seconds-{run.rank}").open("a") as file:
        file.write(f"{seconds} {time.process_time() - cpu}\n")
    if run.rank == 0 and (run.stage is None or run.stage == len(every) - 1):
        for shard in range(len(course.shards)):
            for number, order in enumerate(course.orders):
                names = [stage_name(shard, order[:depth]) for depth in range(1, len(order) + 1)]
                export_adapter(store, names, run.folder / "exports" / f"{shard}-{number}")


def seconds_of(folder: Path, rank: int = 0) -> tuple[float, float]:
    """Wall and CPU seconds of all stages that this rank trained in runs of this folder."""
    lines = [line.split() for line in (folder / f"seconds-{rank}").read_text().splitlines()]
    return sum(float(wall) for wall, _ in lines), sum(float(cpu) for _, cpu in lines)


def main() -> int:
    course = Course.model_validate_json(Path(sys.argv[1]).read_text())
    train(course, EngineRun.model_validate_json(Path(sys.argv[2]).read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
