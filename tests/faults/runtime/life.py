"""A run's life with the hashing trainer, in phases, which the crash harness kills and continues.

12 records in 2 shards x 2 slices, budget 2 (8 stages), a held-out record, a row that ingest sets
aside, an export. Like the real trainer, the one here writes hidden states and a checkpoint that hold
the rows in plain text: a byte of a deleted record that stays anywhere is found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from s3t_ray.config.schema import Config
from s3t_ray.data.partition import Place, place
from s3t_ray.data.slices import read_slice
from s3t_ray.ledger.values import ExportedFolder
from s3t_ray.run import deletion
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, view_shard
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.scheduler.scheduler import Scheduler
from s3t_ray.store.layout import checkpoint_folder
from s3t_ray.train.job import StageJob
from tests.fakes import FakeReplicas, FakeShards, FakeWorkers, fake_base, small_config

PLACES = [Place(shard, index) for shard in (0, 1) for index in (0, 1)]
PERSON = "person-of-two-shards"
HELD_OUT = "held-7f3a"
SET_ASIDE = "set-aside-91bb"
PER_SLICE = 3


@cache
def _plain_config(folder: Path) -> Config:
    return config_of(folder, name="test")


def config_of(folder: Path, **changes: object) -> Config:
    """The run of this life, in `folder`/run."""
    if not changes:
        return _plain_config(folder)
    data = {
        "path": str(folder / "data.jsonl"),
        "subject_field": "subject",
        "holdout_path": str(folder / "held.jsonl"),
        "on_malformed": "set_aside",
    }
    return small_config(folder, **{"slices": 2, "data": data, **changes})


@cache
def _found(folder: Path) -> dict[Place, list[str]]:
    """`PER_SLICE` ids for each place of the run in `folder`."""
    config = config_of(folder)
    found: dict[Place, list[str]] = {spot: [] for spot in PLACES}
    number = 0
    while any(len(ids) < PER_SLICE for ids in found.values()):
        name = f"record-{number:04d}-c0ffee"
        ids = found[place(name, None, config, None)]
        if len(ids) < PER_SLICE:
            ids.append(name)
        number += 1
    return found


def secret(name: str) -> str:
    """A text that occurs only in this record's content."""
    return f"MARKER of {name} {hash_of(name)}"


def hash_of(name: str) -> str:
    return str(sum(ord(letter) * 31**at for at, letter in enumerate(name)))


def write_data(folder: Path, without: Iterable[str] = ()) -> None:
    """The data files and the base model, without some records (by id)."""
    gone = set(without)
    found = _found(folder)
    owned = {found[Place(0, 1)][0], found[Place(1, 0)][0]}
    folder.mkdir(parents=True, exist_ok=True)
    fake_base(folder / "base")
    rows: list[dict[str, object]] = [
        {"id": name, "instruction": "say", "input": "", "output": secret(name), "subject": subject}
        for ids in found.values()
        for name in ids
        if name not in gone
        for subject in [PERSON if name in owned else None]
    ]
    broken: dict[str, object] = {"id": SET_ASIDE, "output": secret(SET_ASIDE), "subject": PERSON}
    _write(folder / "data.jsonl", [*rows, broken])
    held: dict[str, object] = {
        "id": HELD_OUT,
        "instruction": "say",
        "input": "",
        "output": secret(HELD_OUT),
        "subject": None,
    }
    other = held | {"id": "held-other", "output": "kept"}
    _write(folder / "held.jsonl", [other] if HELD_OUT in gone else [held, other])


@cache
def requests(folder: Path) -> list[tuple[list[str], list[str]]]:
    """The deletions of this life, in order: ids and subjects. They overlap; the last names only what is deleted."""
    found = _found(folder)
    return [
        ([found[Place(0, 0)][0]], [PERSON]),
        ([found[Place(0, 0)][0], found[Place(1, 1)][0], HELD_OUT], []),
        ([found[Place(1, 0)][0]], []),
    ]


def deleted_by(folder: Path, count: int) -> set[str]:
    """Ids of all that the first `count` requests delete, the row set aside too."""
    found = _found(folder)
    gone: set[str] = set()
    for ids, subjects in requests(folder)[:count]:
        gone |= set(ids)
        if PERSON in subjects:
            gone |= {found[Place(0, 1)][0], found[Place(1, 0)][0], SET_ASIDE}
    return gone


class LeakyWorkers(FakeWorkers):
    """Hashes, and leaves on the way what the real trainer leaves: hidden states, and a checkpoint until it is done."""

    def _end(self, group: int, job: StageJob) -> Finished:
        rows = [row for part in job.slices for row in read_slice(self._store.fetch(part.path, Path()))]
        plain = json.dumps([(row.id, row.content) for row in rows]).encode()
        for part in job.slices:
            folder = f"hidden/{job.base_digest[:16]}/{job.shard}/{part.slice}/{part.digest}"
            if not self._store.exists(f"{folder}/manifest.json"):
                own = json.dumps([row.content for row in read_slice(self._store.fetch(part.path, Path()))])
                self._store.write_bytes(f"{folder}/layer-2-part-0.safetensors", own.encode())
                self._store.write_bytes(f"{folder}/manifest.json", b"{}")
        checkpoint = f"{checkpoint_folder(job.stage_id)}/000000001"
        self._store.write_bytes(f"{checkpoint}/rank-0.safetensors", plain)
        self._store.write_bytes(f"{checkpoint}/manifest.json", b"{}")
        done = super()._end(group, job)
        self._store.delete(checkpoint_folder(job.stage_id))
        return done


class SlowShards(FakeShards):
    """Purges at the second look after it was asked to, so that the scheduler does other things between."""

    def __init__(self, run: Run, epoch: int) -> None:
        super().__init__(run, epoch)
        self._waiting: dict[int, tuple[str, ...]] = {}

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        assert shard not in self._waiting, f"a purge of shard {shard} is on its way"
        self._waiting[shard] = stopped

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        done = super().finished_purges()
        for shard, stopped in self._waiting.items():
            super().start_purge(shard, stopped)
        self._waiting.clear()
        return done


class Life:
    """A run with a scheduler and its fakes, in this process."""

    def __init__(
        self, config: Config, workers: Callable[[Run], FakeWorkers] = lambda run: LeakyWorkers(run.store)
    ) -> None:
        self.run = Run.create(config)
        ingest(self.run, lambda line: None)
        self.workers = workers(self.run)
        self.now = 0.0
        epoch = self.run.ledger.take_lease("test")
        self.shards = SlowShards(self.run, epoch)
        self.scheduler = Scheduler(self.run, epoch, self.workers, self.shards, FakeReplicas(), lambda: self.now)

    def tick(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.now += 1.0
            self.scheduler.tick(0)

    def settle(self) -> None:
        """Tick until nothing is left to do. Fails after more than 300 rounds."""
        for _ in range(300):
            self.tick()
            if self.scheduler.idle:
                return
        raise AssertionError("not settled after 300 rounds")


Say = Callable[[str], None]
"""Acknowledges: called with the name of what is durable now."""


def phase_ingest(folder: Path, say: Say) -> None:
    with Run.create(config_of(folder)) as run:
        ingest(run, lambda line: None)
    say("ingested")


def phase_train(folder: Path, say: Say) -> None:
    life = Life(config_of(folder))
    life.settle()
    say("trained")


def phase_export(folder: Path, say: Say) -> None:
    """A copy that left the storage; with the text of what it was trained on."""
    with Run.open(folder / "run") as run:
        serving = view_shard(run, 0).serving
        out = folder / "exported"
        run.ledger.exports.note(0, ExportedFolder(str(out), serving, ("adapter_model.safetensors",)))
        out.mkdir(exist_ok=True)
        (out / "adapter_model.safetensors").write_text(" ".join(secret(name) for name in sorted(deleted_by(folder, 1))))
    say("exported")


def phase_delete(folder: Path, say: Say) -> None:
    """All deletions accepted, with no scheduler there."""
    with Run.open(folder / "run") as run:
        for number in range(len(requests(folder))):
            accept(run, folder, number, say)


def phase_heal(folder: Path, say: Say) -> None:
    life = Life(config_of(folder))
    life.settle()
    say("settled")


def phase_together(folder: Path, say: Say) -> None:
    """Deletions that arrive while others are purged and stages are in training."""
    life = Life(config_of(folder))
    accept(life.run, folder, 0, say)
    life.tick(2)  # the purge of the first has begun
    later = iter((1, 2))

    def strike(job: StageJob) -> None:
        number = next(later, None)
        if number is not None:
            accept(life.run, folder, number, say)

    life.workers.before_publish = strike
    life.settle()
    for number in later:
        accept(life.run, folder, number, say)
    life.settle()
    say("settled")


def accept(run: Run, folder: Path, number: int, say: Say) -> None:
    ids, subjects = requests(folder)[number]
    receipt = deletion.accept(run, ids, subjects)
    say(f"receipt {number} {receipt.request_id}")


SAID = frozenset({"ingested", "trained", "exported", "settled"})
"""What phases acknowledge beside receipts."""

Phase = Callable[[Path, Say], None]
PHASES: dict[str, tuple[str | None, Phase]] = {
    "ingest": (None, phase_ingest),
    "train": ("ingest", phase_train),
    "export": ("train", phase_export),
    "delete": ("export", phase_delete),
    "heal": ("delete", phase_heal),
    "together": ("export", phase_together),
}
"""Each with the phase that it begins after."""


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
