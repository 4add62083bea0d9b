"""Measures how fast a stage of a given depth trains in a warm process: the engine alone, without Ray.

In: a Course with one shard, a depth. Out: tokens and CPU seconds of the optimizer steps. The parent stages are trained
without records, because only the presence of their adapters affects the cost.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchlib.course import Course
from benchlib.engine_run import jobs, put_slices
from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.cost import StageCost, stage_cost
from s3t_ray.plan.work import Work, describe_work
from s3t_ray.store.store import Store
from s3t_ray.train.examples import SliceItems, read_items, to_learn
from s3t_ray.train.job import StageJob
from s3t_ray.train.trainer import Trainer


@dataclass(frozen=True)
class StageSpeed:
    """The optimizer steps of one stage, without reading records and computing stored hidden states."""

    depth: int
    records: int
    tokens: int
    labelled: int
    steps: int
    cpu_seconds: float  # of all steps
    wall_seconds: float
    stage_seconds: float  # wall time of the entire stage, with reading, hidden states and publishing
    adapter_sha256: str

    @property
    def tokens_per_cpu_second(self) -> float:
        return self.tokens / self.cpu_seconds


class StageBench:
    """A loaded trainer, and stages for it. The course has one shard and one order."""

    def __init__(self, course: Course, config: Config, folder: Path) -> None:
        self._course = course
        self.config = config
        self._folder = folder
        self.store = Store.open(config.storage.uri)
        self.trainer = Trainer(config, course.base, self.store, folder / "scratch")
        self._turns = 0

    def job(self, depth: int) -> StageJob:
        """A stage at `depth` on all records of the course's first slice. Trains its parents."""
        self._turns += 1
        order = self._course.orders[0]
        records = self._course.shards[0][0]
        slices = tuple(records if order.index(index) == depth - 1 else () for index in range(len(order)))
        folder = self._folder / f"turn-{self._turns}"
        folder.mkdir(parents=True)
        alone = self._course.model_copy(update={"shards": (slices,)})
        chain = [
            replace(
                each,
                stage_id=f"{self._turns}-{each.stage_id}",
                parents=tuple(f"{self._turns}-{parent}" for parent in each.parents),
            )
            for each in jobs(alone, put_slices(alone, self.store, folder))
        ][:depth]
        for above in chain[:-1]:
            self.trainer.train(above, lambda progress: None, lambda: False)
        return chain[-1]

    def speed(self, job: StageJob, turn: str = "") -> StageSpeed:
        """Train the stage. A different `turn` trains it again under another name."""
        begins: list[tuple[float, float]] = []
        took: list[tuple[float, float]] = []

        def poll() -> bool:  # called before every step
            begins.append((time.thread_time(), time.perf_counter()))
            return False

        def progress(_: object) -> None:  # called after it
            took.append((time.thread_time() - begins[-1][0], time.perf_counter() - begins[-1][1]))

        done = self.trainer.train(replace(job, stage_id=job.stage_id + turn), progress, poll)
        items = to_learn([self._items(job)])
        return StageSpeed(
            depth=job.depth,
            records=len(items),
            tokens=done.tokens,
            labelled=sum(item.labelled for item in items) * self.config.optimizer.epochs,
            steps=done.steps,
            cpu_seconds=sum(cpu for cpu, _ in took),
            wall_seconds=sum(wall for _, wall in took),
            stage_seconds=done.seconds,
            adapter_sha256=done.adapter_sha256,
        )

    def _items(self, job: StageJob) -> SliceItems:
        filled = next(piece for piece in job.slices if piece.records)
        return read_items(self.store, filled, self.trainer._tokenizer, self.config.task, self._folder / "cache")


def model_shape(base: Path) -> ModelShape:
    """Sizes of a Llama-like base."""
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(base)
    return ModelShape(
        layers=found.num_hidden_layers,
        hidden=found.hidden_size,
        intermediate=found.intermediate_size,
        heads=found.num_attention_heads,
        kv_heads=found.num_key_value_heads,
        vocabulary=found.vocab_size,
        tied_embeddings=found.tie_word_embeddings,
    )


def cost_of(config: Config, shape: ModelShape, speed: StageSpeed) -> StageCost:
    """FLOPs that this stage cannot avoid, as the plan counts them."""
    work: Work = describe_work(
        config, speed.records, speed.tokens / speed.records, speed.labelled / speed.tokens, shape
    )
    one_slice = replace(work, slice_records=speed.records / speed.depth / work.epochs, shards=1)
    return stage_cost(one_slice, speed.depth)
