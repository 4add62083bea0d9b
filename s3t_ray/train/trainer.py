"""Trains stages: the main path of the engine, top to bottom in `Trainer.train`.

In: a config, a base folder, a store; then one StageJob after another. Out: published stages. The base is loaded
once; everything else of a stage is made anew, so that a stage's bytes depend on its job and never on what was
trained before it. Never touches the ledger and never decides what to train.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor
from transformers import AutoTokenizer

from s3t_ray.config.schema import Config
from s3t_ray.errors import TrainError
from s3t_ray.store.store import Store
from s3t_ray.train import ranks
from s3t_ray.train.adapters import Chain, load_chain
from s3t_ray.train.base import load_base, precision_dtype
from s3t_ray.train.engine import forget_gpu_cache, inference, stage_engine, start_communication
from s3t_ray.train.examples import Item, SliceItems, read_items, to_learn
from s3t_ray.train.feeding import Feeder
from s3t_ray.train.forward import Forward, Packed
from s3t_ray.train.grouped import GroupedModel
from s3t_ray.train.hidden import HiddenStore, SliceStates
from s3t_ray.train.job import Progress, StageJob, StageResult, StageStopped
from s3t_ray.train.manifest import ADAPTER_FILE, MANIFEST, Manifest, SliceLearned, stage_folder, write_manifest
from s3t_ray.train.publish import check_tensors, machine, sha256, stage_files, versions
from s3t_ray.train.schedule import learning_rate
from s3t_ray.train.seeds import StagePlace
from s3t_ray.train.split import whole

OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class _Trained:
    """What a stage's steps left."""

    tensors: dict[str, Tensor]
    losses: tuple[float, ...]
    tokens: int


class Trainer:
    """One rank of a worker group, with the base model loaded. Every rank of the group gets the same jobs."""

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

        `scratch` is a folder of this process alone, for files of the stage in training. `init_method` is torch's
        (tcp:// or file://), needed when world > 1. ConfigError, TrainError.
        """
        if world != config.engine.ranks:
            raise TrainError(
                f"a worker group of {world} ranks was asked to train a recipe of engine.ranks {config.engine.ranks}",
                "start as many ranks as engine.ranks says: their number decides the bits",
            )
        device = ranks.use_device(config.workers.gpus_per_rank)
        ranks.make_deterministic(config.engine.threads)
        ranks.join(rank, world, init_method, device)
        start_communication()
        self.stages_trained = 0  # DeepSpeed keeps about 1 MB an engine: recycle the process after some
        self._config = config
        self._store = store
        self._scratch = scratch
        self._rank = rank
        self._world = world
        self._device = device
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self._base = load_base(config, base, device)
        self._grouped = GroupedModel(self._base, config)
        self._forward = Forward(self._base, precision_dtype(config))
        depths = range(1, config.slices + 1)
        self._boundaries = [layer for layer in map(self._grouped.lowest_layer, depths) if layer > 0]
        self._hidden = HiddenStore(store, self._boundaries, rank, world)

    def train(self, job: StageJob, on_progress: OnProgress, should_stop: ShouldStop) -> StageResult:
        """Train and publish one stage.

        `on_progress` is called after each step on rank 0; `should_stop` is polled before each on every rank, and
        one rank's True ends the stage on all with StageStopped. TrainError, StoreError: nothing was published.
        """
        started = perf_counter()
        ranks.make_deterministic(self._config.engine.threads)
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="stage-", dir=self._scratch) as folder:
            parents = self._load_parents(job)
            slices = [
                read_items(self._store, piece, self._tokenizer, self._config.task, Path(folder) / "cache")
                for piece in job.slices
            ]
            states = self._entering_states(job, slices, Path(folder), should_stop)
            trained = self._run(job, parents, to_learn(slices), states, on_progress, should_stop)
        self.stages_trained += 1
        manifest = self._publish(job, parents, slices, trained, perf_counter() - started)
        losses = manifest.losses
        return StageResult(
            stage_id=job.stage_id,
            adapter_sha256=manifest.adapter_sha256,
            steps=manifest.steps,
            records=manifest.records,
            tokens=manifest.tokens,
            first_loss=losses[0] if losses else None,
            last_loss=losses[-1] if losses else None,
            seconds=manifest.seconds,
        )

    def _load_parents(self, job: StageJob) -> Chain:
        chain = load_chain(self._store, job.parents)
        if len(job.parents) != job.depth - 1:
            raise TrainError(
                f"stage {job.stage_id} has depth {job.depth} but {len(job.parents)} parents",
                "name the stages 1..depth-1 of its sequence as parents",
            )
        for manifest in chain.manifests:
            if (manifest.shard, manifest.recipe_digest, manifest.base_digest) != (
                job.shard,
                job.recipe_digest,
                job.base_digest,
            ):
                raise TrainError(
                    f"parent {manifest.stage_id} is of another shard, recipe or base than stage {job.stage_id}",
                    "train the parents of this stage under this recipe first",
                )
        expected = sorted(name for depth in range(1, job.depth) for name in self._grouped.tensor_names(depth))
        if sorted(chain.tensors) != expected:
            raise TrainError(
                f"the parents of stage {job.stage_id} hold other layers than the groups above it",
                "purge the parents and train them again",
            )
        return chain

    def _entering_states(
        self, job: StageJob, slices: Sequence[SliceItems], work: Path, should_stop: ShouldStop
    ) -> dict[int, SliceStates] | None:
        """Stored states at the stage's boundary by slice, made first where they are missing; None: start from tokens.

        A boundary at layer 0 needs none: what enters it are the embeddings.
        """
        boundary = self._grouped.lowest_layer(job.depth)
        if self._config.engine.hidden_states == "recompute" or boundary == 0:
            return None
        missing = [piece for piece in slices if not self._hidden.has(job, piece)]
        if missing:
            feeder = Feeder(self._config, self._base, None, self._rank, self._world)
            with inference(self._base.model, self._boundary_states, self._config) as compute:
                for piece in missing:
                    if not self._hidden.make(job, piece, lambda item: compute(feeder.alone(item)), work, should_stop):
                        raise StageStopped(job.stage_id)
        return {piece.input.slice: self._hidden.open(job, piece, boundary, work / "cache") for piece in slices}

    def _boundary_states(self, batch: Packed) -> dict[int, Tensor]:
        return self._forward.states_entering(self._boundaries, batch)

    def _run(
        self,
        job: StageJob,
        parents: Chain,
        items: Sequence[Item],
        states: dict[int, SliceStates] | None,
        on_progress: OnProgress,
        should_stop: ShouldStop,
    ) -> _Trained:
        """Switch the stage on, train it, and switch it off again whatever happens."""
        place = StagePlace(self._config.seed, job.shard, job.place)
        boundary = 0 if states is None else self._grouped.lowest_layer(job.depth)
        trainable = self._grouped.begin(place, parents.tensors)
        try:
            if not items:
                return _Trained({name: value.detach().cpu() for name, value in trainable.items()}, (), 0)
            feeder = Feeder(self._config, self._base, states, self._rank, self._world)
            losses: list[float] = []
            with (
                stage_engine(self._base.model, trainable, self._forward.loss, self._config) as engine,
                self._grouped.cut(boundary),
            ):
                steps = list(feeder.steps(items, place))
                for number, step in enumerate(steps):
                    began = perf_counter()
                    self._poll(job, should_stop)
                    torch.manual_seed(place.dropout(number, self._rank))
                    rate = learning_rate(number, len(steps), self._config.optimizer)
                    mine = engine.step(feeder.batches(step), self._world / step.labelled, rate)
                    (loss_sum,) = ranks.sum_over_ranks([mine])
                    losses.append(self._checked_loss(job, number, loss_sum / step.labelled))
                    if self._rank == 0:
                        speed = step.tokens / (perf_counter() - began)
                        on_progress(Progress(job.stage_id, number + 1, len(steps), losses[-1], speed))
                tensors = engine.tensors()
            self._check_parents_unchanged(job, parents)
            return _Trained(tensors, tuple(losses), sum(step.tokens for step in steps))
        finally:
            self._grouped.rest()
            forget_gpu_cache()

    def _poll(self, job: StageJob, should_stop: ShouldStop) -> None:
        """End the stage on every rank if one was asked to."""
        (stops,) = ranks.sum_over_ranks([float(should_stop())])
        if stops:
            raise StageStopped(job.stage_id)

    def _checked_loss(self, job: StageJob, step: int, loss: float) -> float:
        if not torch.isfinite(torch.tensor(loss)):
            raise TrainError(
                f"stage {job.stage_id}: the loss of step {step + 1} is {loss}; nothing was published",
                "lower optimizer.lr, raise optimizer.warmup, or set optimizer.grad_clip",
            )
        return loss

    def _check_parents_unchanged(self, job: StageJob, parents: Chain) -> None:
        """The groups above must still hold, bit for bit, what was published (a known mistake resets them)."""
        for depth in range(1, job.depth):
            active = self._grouped.active(depth)
            with whole(list(active.values())):
                for name, tensor in active.items():
                    if not torch.equal(tensor.detach().cpu(), parents.tensors[name]):
                        raise TrainError(f"training stage {job.stage_id} changed {name} of a parent", "report this")

    def _publish(
        self, job: StageJob, parents: Chain, slices: Sequence[SliceItems], trained: _Trained, seconds: float
    ) -> Manifest:
        """Check the tensors and, on rank 0, write the stage's folder."""
        heads = set(self._base.fresh)
        lora = {name: value for name, value in trained.tensors.items() if name not in heads}
        head = {name: value for name, value in trained.tensors.items() if name in heads}
        check_tensors(job.stage_id, trained.tensors, [*self._grouped.tensor_names(job.depth), *self._base.fresh])
        files = stage_files(lora, head, self._grouped.modules_at(job.depth), self._config)
        items = to_learn(slices)
        manifest = Manifest(
            stage_id=job.stage_id,
            shard=job.shard,
            slices=tuple(SliceLearned(index=piece.slice, digest=piece.digest) for piece in job.slices),
            parents=job.parents,
            recipe_digest=job.recipe_digest,
            base_digest=job.base_digest,
            adapter_sha256=sha256(files[ADAPTER_FILE]),
            files={name: sha256(data) for name, data in files.items()},
            losses=trained.losses,
            steps=len(trained.losses),
            records=len(items),
            unlabelled=sum(len(piece.items) for piece in slices) - len(items),
            tokens=trained.tokens,
            seconds=seconds,
            versions=versions(),
            machine=machine(self._device),
        )
        if self._rank == 0:
            self._store.publish(
                stage_folder(job.stage_id), {**files, MANIFEST: write_manifest(manifest)}, marker=MANIFEST
            )
        return manifest
