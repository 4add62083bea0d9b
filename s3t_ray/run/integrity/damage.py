"""Finds live stages whose published bytes are no longer those that the ledger accepted.

In: an open run and stages. Out: the damaged ones. Never repairs: the scheduler takes them out of service, purges them
and retrains them. They still follow from the data, so their ids do not change.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from s3t_ray.errors import StageDamaged, StoreError
from s3t_ray.ledger.values import StageRow, StageState
from s3t_ray.run.run import Run
from s3t_ray.store.published_stage import PublishedStage, looks_whole

DAMAGED = "its published bytes were damaged in the storage: it is trained again"
"""The failure of such a stage in the ledger until it is accepted again."""


def is_whole(run: Run, stage_id: str, adapter_sha256: str | None) -> bool:
    """Whether every published file of a stage matches its manifest, and its adapter this digest.

    Reads all bytes. `adapter_sha256` None: use the manifest's. StoreError: an existing file cannot be read, which does
    not prove damage.
    """
    try:
        stage = PublishedStage.open(run.store, stage_id)
    except StageDamaged:
        return False
    return adapter_sha256 in (None, stage.manifest.adapter_sha256) and not stage.broken_files()


def damaged(run: Run, shard: int, stage_ids: Iterable[str]) -> tuple[str, ...]:
    """The live stages among these that are certainly damaged. Reads every byte of them."""
    found = []
    for row in _live(run, shard, frozenset(stage_ids)):
        with suppress(StoreError):  # an unreachable disk or network proves nothing
            if not is_whole(run, row.id, row.adapter_sha256):
                found.append(row.id)
    return tuple(found)


def incomplete(run: Run, shard: int, files: frozenset[str]) -> tuple[str, ...]:
    """Live stages of a shard whose manifest or adapter is missing from the storage's `files`.

    Reads no bytes, so a scheduler can check every stage when it starts. A damaged stage's folder can be removed by
    hand, and the next start retrains the stage.
    """
    return tuple(row.id for row in _live(run, shard, None) if not looks_whole(row.id, files))


def _live(run: Run, shard: int, only: frozenset[str] | None) -> list[StageRow]:
    rows = run.ledger.stages(shard, StageState.LIVE)
    return [row for row in rows if only is None or row.id in only]
