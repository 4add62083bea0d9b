"""Live stages whose published bytes are no longer those that the ledger accepted.

In: an open run and stages. Out: those that are damaged. Never repairs: the scheduler takes them out of service, has
them purged, and trains them again. They still follow from the data, so their names stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from s3t_ray.errors import StageDamaged, StoreError
from s3t_ray.ledger.values import StageRow, StageState
from s3t_ray.run.run import Run
from s3t_ray.store.published_stage import PublishedStage, looks_whole

DAMAGED = "its published bytes were damaged in the storage: it is trained again"
"""What the ledger keeps as the failure of such a stage until it is accepted anew."""


def is_whole(run: Run, stage_id: str, adapter_sha256: str | None) -> bool:
    """Whether every published file of a stage has the bytes that its manifest names, and its adapter these.

    Reads all of it. `adapter_sha256` None: what the manifest says. Raises StoreError when a file that
    is there cannot be read: that is no proof of damage.
    """
    try:
        stage = PublishedStage.open(run.store, stage_id)
    except StageDamaged:
        return False
    return adapter_sha256 in (None, stage.manifest.adapter_sha256) and not stage.broken_files()


def damaged(run: Run, shard: int, stage_ids: Iterable[str]) -> tuple[str, ...]:
    """Which of these live stages of a shard are damaged for certain. Reads every byte of them."""
    found = []
    for row in _live(run, shard, frozenset(stage_ids)):
        with suppress(StoreError):  # a disk or a network that does not answer proves nothing
            if not is_whole(run, row.id, row.adapter_sha256):
                found.append(row.id)
    return tuple(found)


def incomplete(run: Run, shard: int, files: frozenset[str]) -> tuple[str, ...]:
    """Live stages of a shard that lack their manifest or their adapter among `files` of the storage.

    Reads no bytes, so a scheduler can look at every stage when it starts: whoever finds a damaged
    stage removes its folder, and the next start trains it again.
    """
    return tuple(row.id for row in _live(run, shard, None) if not looks_whole(row.id, files))


def _live(run: Run, shard: int, only: frozenset[str] | None) -> list[StageRow]:
    rows = run.ledger.stages(shard, StageState.LIVE)
    return [row for row in rows if only is None or row.id in only]
