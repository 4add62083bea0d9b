"""Runs the optimizer steps of one stage, from the first step or a checkpoint to the last.

In: an engine, a feeder, the stage's steps. Out: the mean loss of each step. Stops early only with StageStopped (a
rank was asked to stop) or TrainError (the loss is not finite).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter

import torch

from s3t_ray.config.schema import Config
from s3t_ray.errors import TrainError
from s3t_ray.store.store import Store
from s3t_ray.train.checkpoint import delete_checkpoints, load_checkpoint, save_checkpoint
from s3t_ray.train.engine import StageEngine
from s3t_ray.train.feeder import Feeder, Step
from s3t_ray.train.job import Progress, StageJob, StageStopped
from s3t_ray.train.learning_rate import learning_rate
from s3t_ray.train.ranks import Group
from s3t_ray.train.seeds import StagePlace

OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


class Learner:
    """Runs the steps of a stage on one rank."""

    def __init__(self, config: Config, store: Store, group: Group) -> None:
        self._config = config
        self._store = store
        self._group = group

    def learn(
        self,
        job: StageJob,
        place: StagePlace,
        engine: StageEngine,
        feeder: Feeder,
        steps: Sequence[Step],
        on_progress: OnProgress,
        should_stop: ShouldStop,
    ) -> tuple[float, ...]:
        """Run every step after the latest checkpoint. Returns the mean loss per labelled token of all steps.

        Raises StageStopped if a rank was asked to stop, TrainError if the loss is not finite.
        """
        losses = self._resume(job, engine)
        with feeder.reading(steps[len(losses) :]):
            for number in range(len(losses), len(steps)):
                began = perf_counter()
                self._poll(job, should_stop)
                losses.append(self._step(job, place, engine, feeder, number, steps))
                if self._group.rank == 0:
                    speed = steps[number].tokens / (perf_counter() - began)
                    on_progress(Progress(job.stage_id, number + 1, len(steps), losses[-1], speed))
                self._keep(job, engine, losses, len(steps))
        self._poll(job, should_stop)
        return tuple(losses)

    def forget(self, job: StageJob) -> None:
        """Erase the stage's checkpoints."""
        if self._group.rank == 0:
            delete_checkpoints(self._store, job.stage_id)

    def _step(
        self,
        job: StageJob,
        place: StagePlace,
        engine: StageEngine,
        feeder: Feeder,
        number: int,
        steps: Sequence[Step],
    ) -> float:
        step = steps[number]
        # Dropout is seeded per step, so a resumed stage draws the same masks.
        torch.manual_seed(place.dropout(number, self._group.rank))
        rate = learning_rate(number, len(steps), self._config.optimizer)
        summed = engine.step(feeder.batches(step), self._group.world / step.labelled, rate)
        loss = self._group.sum(summed) / step.labelled
        if not math.isfinite(loss):
            raise TrainError(
                f"stage {job.stage_id}: the loss at step {number + 1} is {loss}; nothing was published",
                "lower optimizer.lr, raise optimizer.warmup, or set optimizer.grad_clip",
            )
        return loss

    def _poll(self, job: StageJob, should_stop: ShouldStop) -> None:
        """Raise StageStopped on every rank if any rank was asked to stop."""
        if self._group.any(should_stop()):
            raise StageStopped(job.stage_id)

    def _resume(self, job: StageJob, engine: StageEngine) -> list[float]:
        if not self._config.engine.checkpoint_steps:
            return []
        found = load_checkpoint(self._store, job, self._group)
        if found is None:
            return []
        engine.load_state(found.tensors)
        return list(found.losses)

    def _keep(self, job: StageJob, engine: StageEngine, losses: Sequence[float], steps: int) -> None:
        every = self._config.engine.checkpoint_steps
        if every and len(losses) % every == 0 and len(losses) < steps:
            save_checkpoint(self._store, job, losses, engine.state(), self._group)
