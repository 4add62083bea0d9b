"""One rank of a worker group: a long-lived process that keeps the base model loaded.

This is a plain class; `worker_groups.py` makes it a Ray actor. Training runs in one thread, and control
calls (`progress`, `stop`) run in others, so that a deletion can stop a stage during training.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from s3t_ray.config.base_model import digest_base, read_shape
from s3t_ray.config.load import parse_config
from s3t_ray.errors import TrainError
from s3t_ray.run.machine_scratch import machine_scratch
from s3t_ray.runtime.gpu_card import check_own_card
from s3t_ray.scheduler.requeue import check_recipe_of
from s3t_ray.store.store import Store
from s3t_ray.train.job import Progress, StageJob, StageResult, StageStopped

if TYPE_CHECKING:
    from s3t_ray.train.trainer import Trainer


class Rank:
    """Rank `rank` of `world`. `start` loads the base model, `train` trains one stage after another."""

    def __init__(self, config_yaml: str, base: str, store_uri: str, rank: int, world: int) -> None:
        self._config = parse_config(config_yaml, "the scheduler")
        self._base = Path(base)
        self._store = Store.open(store_uri)
        self._rank = rank
        self._world = world
        self._trainer: Trainer | None = None
        self._base_digest = ""
        self._scratch = machine_scratch("rank")
        self._progress: Progress | None = None
        self._stopped: str | None = None

    def rendezvous(self) -> str:
        """A rendezvous address for the group's ranks: `tcp://host:port`, with a port that is free now."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        host = "127.0.0.1" if self._world == 1 else _own_address()
        return f"tcp://{host}:{port}"

    def start(self, init_method: str) -> None:
        """Join the group and load the base model, so that the rank can train. Raises ConfigError if it cannot fit."""
        check_own_card(self._config, read_shape(self._base))
        from s3t_ray.train.trainer import Trainer  # imports torch and deepspeed, which the actor's creator must not

        # The same path can contain a different model on another node.
        self._base_digest = digest_base(self._base)
        self._trainer = Trainer(
            self._config,
            self._base,
            self._store,
            Path(self._scratch.name),
            rank=self._rank,
            world=self._world,
            init_method=init_method,
        )

    def train(self, job: StageJob) -> StageResult | None:
        """Train one stage; None if `stop` ended it. Raises TrainError or StoreError."""
        check_recipe_of(job, self._config)
        if self._trainer is None:
            raise TrainError(f"rank {self._rank} was told to train before it was started", "call start first")
        if job.base_digest != self._base_digest:
            raise TrainError(
                f"the base model at {self._base} on {socket.gethostname()} is not the one that this run was trained "
                f"on (its digest is {self._base_digest[:16]}..., the run's {job.base_digest[:16]}...)",
                "put the same base model at this path on every node, and run `s3t train` again",
            )
        self._progress = None
        try:
            return self._trainer.train(job, self._note, lambda: self._stopped == job.stage_id)
        except StageStopped:
            return None
        finally:
            self._progress = None
            if self._stopped == job.stage_id:
                self._stopped = None  # the same stage may be wanted again later

    def stop(self, stage_id: str) -> None:
        """Stop the training of `stage_id` at its next step, even if it has not started yet."""
        self._stopped = stage_id

    def progress(self) -> Progress | None:
        """The progress of the stage in training; None between stages."""
        return self._progress

    def stages_trained(self) -> int:
        """The number of stages that this process has trained, which determines when it is recycled."""
        return 0 if self._trainer is None else self._trainer.stages_trained

    def _note(self, progress: Progress) -> None:
        self._progress = progress


def _own_address() -> str:
    """The address at which other nodes reach this one, according to Ray."""
    import ray

    return str(ray.util.get_node_ip_address())
