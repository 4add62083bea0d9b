"""A small run for the ledger's tests: its records, its plans, its stages, a clock one can turn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import DeletionState, RecordEntry, RunRow, StageState
from s3t_ray.plan.stages import HOLDOUT_SHARD, ShardPlan, Stage, plan_shard

SHARDS = 2
SLICES = 3
PER_SLICE = 4
RUN = RunRow("tiny", "a" * 64, '{"seed":0}', "b" * 64, SHARDS, SLICES, "0123456789abcdef")
PLACES = ((HOLDOUT_SHARD, 0), *((shard, index) for shard in range(SHARDS) for index in range(SLICES)))


class Clock:
    """A clock that moves a second a look, and can be turned back."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


def name(kind: str, key: object) -> bytes:
    """Stands for an HMAC: 32 bytes."""
    return hashlib.sha256(f"{kind}/{key}".encode()).digest()


def entry(key: str, shard: int, index: int, subject: str | None = None) -> RecordEntry:
    who = None if subject is None else name("subject", subject)
    return RecordEntry(name("id", key), who, name("content", key), name("digest", key), shard, index)


def key(shard: int, index: int, number: int) -> str:
    return f"{shard}.{index}.{number}"


def record(shard: int, index: int, number: int) -> bytes:
    """Id HMAC of one record of the run."""
    return name("id", key(shard, index, number))


def digest(shard: int, index: int, number: int) -> bytes:
    return name("digest", key(shard, index, number))


def entries() -> Iterator[RecordEntry]:
    """Record 0 of each slice belongs to the subject "ann", record 1 to one of its own place, the others to none."""
    for shard, index in PLACES:
        for number in range(PER_SLICE):
            subject = {0: "ann", 1: f"at {shard}.{index}"}.get(number)
            yield entry(key(shard, index, number), shard, index, subject)


def digests(ledger: Ledger, shard: int) -> dict[int, str]:
    return {state.slice: state.digest for state in ledger.slices(shard)}


def plan(ledger: Ledger, shard: int, orders: tuple[tuple[int, ...], ...] = ((0, 1, 2), (1, 2, 0))) -> ShardPlan:
    """What the run wants of a shard now."""
    return plan_shard(shard, orders, digests(ledger, shard), RUN.recipe_digest)


def adapter(stage: Stage | str) -> str:
    """SHA-256 of the bytes that a pretended training made."""
    return hashlib.sha256(f"adapter {stage if isinstance(stage, str) else stage.id}".encode()).hexdigest()


def train(ledger: Ledger, epoch: int, stages: list[Stage]) -> None:
    """Accept these stages, trained on the data as it is now."""
    for stage in stages:
        assert ledger.accept_stage(epoch, stage, adapter(stage), digests(ledger, stage.shard))


def train_all(ledger: Ledger, epoch: int) -> None:
    """Train every stage that is wanted and missing."""
    for shard in range(SHARDS):
        have = {row.id for row in ledger.stages(shard, StageState.LIVE)}
        wanted = plan(ledger, shard).stages.values()
        train(ledger, epoch, sorted((s for s in wanted if s.id not in have), key=lambda s: s.depth))


def write_files(ledger: Ledger, epoch: int) -> None:
    """Record a clean file for every slice."""
    for state in ledger.slices():
        path = f"slices/{state.shard}/{state.slice}/{state.digest}.parquet"
        ledger.set_slice_file(epoch, state.shard, state.slice, path, "c" * 64, state.digest)


def purge(ledger: Ledger, epoch: int, request_id: str) -> None:
    """Take a deletion from accepted to purged, the way a scheduler does."""
    ledger.advance(epoch, request_id, DeletionState.PRUNED)
    write_files(ledger, epoch)
    ledger.mark_purged(epoch, [row.id for row in ledger.stages(state=StageState.STALE)])
    ledger.advance(epoch, request_id, DeletionState.PURGED)
