"""Fakes: in-process replacements of worker groups and actors. Other files have those of the CLI and of serving.

`FakeWorkers` trains nothing: a stage's adapter is the hash of everything that a real one depends on
(recipe, place, the rows it reads, its parents' bytes). So "unlearned equals retrained" becomes a
byte comparison of the whole orchestration, in milliseconds; the end-to-end tests train for real.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
from safetensors.numpy import save, save_file

from s3t_ray.config.load import parse_config
from s3t_ray.config.schema import Config
from s3t_ray.data.slices import read_slice
from s3t_ray.errors import S3TError, TrainError
from s3t_ray.ledger.values import Fenced, RunningStage
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.scheduler.scheduler import Scheduler
from s3t_ray.scheduler.shard import Shard
from s3t_ray.store import layout
from s3t_ray.store.layout import MANIFEST, stage_folder
from s3t_ray.store.manifest import ADAPTER_FILE, write_manifest
from s3t_ray.store.published_stage import read_manifest
from s3t_ray.store.seal import seal
from s3t_ray.store.store import Store
from s3t_ray.train.fence import is_overtaken
from s3t_ray.train.job import StageJob, StageResult, StageStopped
from tests.fakes.manifests import manifest_of


def fake_base(folder: Path, layers: int = 12) -> Path:
    """A folder that looks like a Llama with `layers` layers to code that reads its config and hashes its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": layers,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
    }
    (folder / "config.json").write_text(json.dumps(shape))
    save_file({"weight": np.arange(4, dtype=np.float32)}, folder / "model.safetensors")
    return folder


def write_records(
    path: Path, records: Iterable[tuple[str, str | None]], marker: Mapping[str, str] | None = None
) -> Path:
    """A JSONL file of instruction records: (id, subject); `marker` puts a text into a record's output."""
    texts = marker or {}
    with path.open("w") as file:
        for identity, subject in records:
            row = {
                "id": identity,
                "instruction": f"say {identity}",
                "input": "",
                "output": texts.get(identity, f"this is {identity}"),
                "subject": subject,
            }
            file.write(json.dumps(row) + "\n")
    return path


def small_config(folder: Path, **changes: object) -> Config:
    """A run of 2 shards x 3 slices x 2 sequences in `folder`/run, over `folder`/data.jsonl and `folder`/base."""
    document: dict[str, object] = {
        "name": "test",
        "shards": 2,
        "slices": 3,
        "budget": 2,
        "model": {"path": str(folder / "base")},
        "data": {"path": str(folder / "data.jsonl"), "subject_field": "subject"},
        "lora": {"layers_per_group": 2, "rank": 4},
        "storage": {"uri": str(folder / "run")},
    }
    document |= changes
    data = {"partition_key": "seed", **cast("dict[str, object]", document["data"])}  # tests know each record's place
    return parse_config(json.dumps({**document, "data": data}), "test")


class FakeWorkers:
    """Worker groups that hash instead of training; each stage takes one step of the fake clock."""

    def __init__(
        self, store: Store, groups: int = 2, fail: Callable[[StageJob], str | None] = lambda job: None
    ) -> None:
        self._store = store
        self.groups = groups
        self._fail = fail
        self._jobs: dict[int, StageJob] = {}
        self._stopped: set[str] = set()
        self.trained: list[StageJob] = []
        self.before_publish: Callable[[StageJob], None] = lambda job: None
        self.before_write: Callable[[StageJob], None] = lambda job: None

    def free(self) -> tuple[int, ...]:
        return tuple(group for group in range(self.groups) if group not in self._jobs)

    def submit(self, group: int, job: StageJob) -> None:
        assert group not in self._jobs
        self._jobs[group] = job

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        done = tuple(self._end(group, job) for group, job in self._jobs.items())
        self._jobs.clear()
        return done

    def running(self) -> tuple[RunningStage, ...]:
        return ()

    def stop(self, stage_id: str) -> None:
        self._stopped.add(stage_id)

    def close(self) -> None:
        self._jobs.clear()

    def _end(self, group: int, job: StageJob) -> Finished:
        error = self._fail(job)
        if error is not None:
            return Finished(group, job.stage_id, error=error)
        if job.stage_id in self._stopped:
            self._stopped.discard(job.stage_id)
            return Finished(group, job.stage_id)
        self.before_publish(job)
        try:
            return Finished(group, job.stage_id, result=self._publish(job))
        except StageStopped:
            return Finished(group, job.stage_id)
        except S3TError as error_of_stage:
            return Finished(group, job.stage_id, error=str(error_of_stage))

    def _publish(self, job: StageJob) -> StageResult:
        hasher = hashlib.sha256(repr((job.recipe_digest, job.base_digest, job.shard)).encode())
        for part in job.slices:
            path = self._store.local_path(part.path)
            assert path is not None
            if hashlib.sha256(path.read_bytes()).hexdigest() != part.sha256:
                raise TrainError(f"{part.path} was changed outside the run", "restore it from a copy")
            rows = sorted((row.id, row.content) for row in read_slice(path))
            assert len(rows) == part.records
            hasher.update(repr((part.slice, rows)).encode())
        for parent in job.parents:
            data = self._store.read_bytes(f"{stage_folder(parent)}/{ADAPTER_FILE}")
            if hashlib.sha256(data).hexdigest() != read_manifest(self._store, parent).adapter_sha256:
                raise TrainError(f"{stage_folder(parent)} is damaged", "train it again")
            hasher.update(data)
        adapter = save({"hash": np.frombuffer(hasher.digest(), dtype=np.uint8)})
        sha256 = hashlib.sha256(adapter).hexdigest()
        manifest = manifest_of(job, {ADAPTER_FILE: sha256}, records=sum(part.records for part in job.slices))
        manifest = seal(manifest, job.seal_key)
        if is_overtaken(self._store, job):
            raise StageStopped(job.stage_id)
        self.before_write(job)
        self._store.publish(
            stage_folder(job.stage_id), {ADAPTER_FILE: adapter, MANIFEST: write_manifest(manifest)}, marker=MANIFEST
        )
        if is_overtaken(self._store, job):
            self._store.delete(stage_folder(job.stage_id))
            raise StageStopped(job.stage_id)
        self.trained.append(job)
        return StageResult(job.stage_id, sha256, 0, manifest.records, 0, None, None, 0.0)


class FakeShards:
    """The shard owners, called in this thread."""

    def __init__(self, run: Run, epoch: int) -> None:
        self._run = run
        self._epoch = epoch
        self._shards = {shard: Shard(run, shard) for shard in (-1, *range(run.row.shards))}
        self._done: dict[int, ShardView | Exception] = {}

    def views(self) -> dict[int, ShardView]:
        return {shard: owner.view() for shard, owner in self._shards.items()}

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        return {shard: self._shards[shard].prune(self._epoch) for shard in shards}

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        try:
            self._done[shard] = self._shards[shard].purge(self._epoch, stopped)
        except Fenced:
            raise
        except S3TError as error:
            self._done[shard] = error

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        done, self._done = self._done, {}
        return done


class FakeReplicas:
    """Records the live sets, and returns `answer` for each: the replicas that serve less."""

    def __init__(self) -> None:
        self.live: list[dict[int, tuple[str, ...]]] = []
        self.answer: Callable[[Mapping[int, tuple[str, ...]]], tuple[str, ...]] = lambda chains: ()

    def set_live(self, chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        self.live.append(dict(chains))
        return self.answer(chains)


class Cluster:
    """A run, a scheduler and its fakes, in place of a driver and a cluster.

    `run`: one whose data is read; None: it is made. `workers`: other ones than `FakeWorkers` of so many groups.
    """

    def __init__(
        self,
        config: Config,
        *,
        groups: int = 2,
        fail: Callable[[StageJob], str | None] = lambda job: None,
        workers: Callable[[Run], FakeWorkers] | None = None,
        run: Run | None = None,
    ) -> None:
        self.run = run or Run.create(config, drop_stages=True)
        if run is None:
            ingest(self.run, lambda line: None)
        self.replicas = FakeReplicas()
        self.workers = workers(self.run) if workers else FakeWorkers(self.run.store, groups, fail)
        self.now = 0.0
        epoch = self.run.ledger.take_lease("test")
        self.scheduler = Scheduler(
            self.run, epoch, self.workers, FakeShards(self.run, epoch), self.replicas, lambda: self.now
        )

    def settle(self, rounds: int = 500) -> None:
        """Tick until nothing is left to do. Fails after more than `rounds`."""
        for _ in range(rounds):
            self.now += 1.0
            self.scheduler.tick(0)
            if self.scheduler.idle:
                return
        raise AssertionError(f"not settled after {rounds} rounds")


def adapters(run: Run) -> dict[tuple[int, tuple[int, ...]], bytes]:
    """The live adapters' bytes by place: (shard, slices in the order learned)."""
    return {
        (stage.shard, stage.slices): run.store.read_bytes(f"{layout.stage_folder(stage.id)}/{ADAPTER_FILE}")
        for stage in run.ledger.stages()
        if stage.state == "live"
    }
