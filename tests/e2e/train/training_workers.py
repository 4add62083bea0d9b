"""A fake worker group that really trains, in this process: a complete run without Ray."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.config.schema import Config
from s3t_ray.run.run import Run
from s3t_ray.train.job import StageJob, StageResult
from s3t_ray.train.trainer import Trainer
from tests.fakes import Cluster, FakeWorkers


class TrainingWorkers(FakeWorkers):
    """One group."""

    def __init__(self, run: Run, scratch: Path) -> None:
        super().__init__(run.store, groups=1)
        self._trainer = Trainer(run.config, run.base, run.store, scratch)

    def _publish(self, job: StageJob) -> StageResult:
        result = self._trainer.train(job, lambda progress: None, lambda: False)
        self.trained.append(job)
        return result


def trained_run(config: Config, scratch: Path) -> Cluster:
    """The run of `config`, trained to the end."""
    cluster = Cluster(config, workers=lambda run: TrainingWorkers(run, scratch))
    cluster.settle()
    return cluster
