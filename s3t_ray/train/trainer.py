"""Trains stages: the engine's main path, which `Trainer.train` shows from top to bottom.

In: a config, a base folder, a store; then one StageJob after another. Out: published stages. The base is loaded once.
Everything else is created anew for each stage, so that a stage's bytes depend on its job and never on what was trained
before it. Never touches the ledger and never decides what to train.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from s3t_ray.config.schema import Config
from s3t_ray.errors import TrainError
from s3t_ray.store.store import Store
from s3t_ray.train.adapters import Chain, load_parents
from s3t_ray.train.engine import forget_gpu_cache, stage_engine, start_communication
from s3t_ray.train.examples import Item, read_items, to_learn
from s3t_ray.train.feeder import Feeder
from s3t_ray.train.forward import Forward
from s3t_ray.train.grouped import GroupedModel
from s3t_ray.train.hidden_states.hidden import HiddenStore
from s3t_ray.train.hidden_states.incoming_states import Entering, EnteringStates
from s3t_ray.train.job import StageJob, StageResult, StageStopped
from s3t_ray.train.learner import Learner, OnProgress, ShouldStop
from s3t_ray.train.loading.base import load_base, precision_dtype
from s3t_ray.train.loading.base_reader import base_reader
from s3t_ray.train.publish import Trained, publish_stage
from s3t_ray.train.ranks import join, make_deterministic
from s3t_ray.train.seeds import StagePlace


class Trainer:
    """One rank of a worker group, with the base model loaded. Every rank of the group gets the same jobs.

    If one rank fails, the others wait for it forever, so the process that started the group must end all of it.
    """

    def __init__(
        self,
        config: Config,
        base: Path,
        store: Store,
        scratch: Path,
        rank: int = 0,
        world: int = 1,
        init_method: str | None = None,
    ) -> None:
        """Join the worker group and load the base folder `base`.

        `scratch` is a folder for temporary files of the current stage; no other process may use it. `init_method` is
        torch's (tcp:// or file://) and is required if world > 1. Raises ConfigError or TrainError.
        """
        if world != config.engine.ranks:
            raise TrainError(
                f"a worker group of {world} ranks was asked to train a recipe with engine.ranks {config.engine.ranks}",
                "start exactly engine.ranks ranks: the number of ranks affects the bits",
            )
        make_deterministic(config.engine.threads)
        self._group = join(rank, world, init_method, config.workers.gpus_per_rank)
        start_communication()
        self.stages_trained = 0  # lets the caller recycle the process after a number of stages
        self._config = config
        self._store = store
        self._scratch = scratch
        self._tokenizer = base_reader(base, config.task)
        self._base = load_base(config, base, self._group.device)
        self._grouped = GroupedModel(self._base, config)
        self._forward = Forward(self._base, precision_dtype(config))
        hidden = HiddenStore(store, self._group)
        self._entering = EnteringStates(config, self._grouped, self._forward, hidden, self._group)
        self._learner = Learner(config, store, self._group)

    def train(self, job: StageJob, on_progress: OnProgress, should_stop: ShouldStop) -> StageResult:
        """Train and publish one stage.

        Rank 0 calls `on_progress` after each step. Every rank polls `should_stop` before each step; if it returns
        True on any rank, all ranks raise StageStopped. Raises TrainError or StoreError if nothing was published.
        """
        make_deterministic(self._config.engine.threads)
        try:
            published = self._train(job, on_progress, should_stop)
        except (StageStopped, TrainError):
            self._learner.forget(job)
            raise
        self._learner.forget(job)
        self.stages_trained += 1
        return published

    def _train(self, job: StageJob, on_progress: OnProgress, should_stop: ShouldStop) -> StageResult:
        started = perf_counter()
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="stage-", dir=self._scratch) as folder:
            names = self._grouped.parent_names(job.depth)
            parents = load_parents(self._store, job, names, self._config.lora.isolation)
            slices = [
                read_items(self._store, piece, self._tokenizer, self._config.task, Path(folder) / "cache")
                for piece in job.slices
            ]
            entering = self._entering.of(job, slices, Path(folder), should_stop)
            try:
                trained = self._run(job, parents, to_learn(slices), entering, on_progress, should_stop)
            finally:
                if entering is not None:
                    entering.close()
        seconds = perf_counter() - started
        return publish_stage(self._store, job, self._config, self._grouped, trained, seconds, self._group)

    def _run(
        self,
        job: StageJob,
        parents: Chain,
        items: Sequence[Item],
        entering: Entering | None,
        on_progress: OnProgress,
        should_stop: ShouldStop,
    ) -> Trained:
        """Activate the stage, run its steps, and always deactivate it afterwards."""
        place = StagePlace(self._config.seed, job.shard, job.place)
        boundary = 0 if entering is None else entering.layer
        feeder = Feeder(self._config, self._base, entering, self._group)
        steps = list(feeder.steps(items, place))
        trainable = self._grouped.begin(place, parents.tensors | parents.head)
        try:
            if not steps:
                return Trained({name: value.detach().cpu() for name, value in trainable.items()}, (), 0, 0)
            with (
                stage_engine(self._base.model, trainable, self._forward.loss, self._config) as engine,
                self._grouped.cut(boundary),
            ):
                losses = self._learner.learn(job, place, engine, feeder, steps, on_progress, should_stop)
                tensors = engine.tensors()
            self._grouped.check_unchanged(job.depth, parents.tensors)
            return Trained(tensors, losses, len(items), sum(step.tokens for step in steps))
        finally:
            self._grouped.rest()
            forget_gpu_cache()
