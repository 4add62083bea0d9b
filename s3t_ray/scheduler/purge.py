"""Erases everything derived from deleted records; `KINDS` is the complete list.

A new kind of derived data must be added to `KINDS`, with its purge. `s3t verify` reports every file in the storage that
is outside the roots of this list. A test puts a marker in each kind and searches every byte of the storage after the
purge.

In addition, the ledger holds data derived from contents (content HMACs, row digests, MinHash signatures and their
bands), which `Ledger.advance` to purged erases. Killed writers leave temporary files (tmp-*), which `Store.sweep`
erases when a scheduler starts, and those of a purge are erased by the next purge of the shard.

Each function is idempotent: it can be killed anywhere and called again. Bytes are erased before the ledger records it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from s3t_ray.data.slice_file import file_sha256
from s3t_ray.data.slices import rewrite_slice
from s3t_ray.errors import StoreError
from s3t_ray.ledger.values import SliceState, StageRow, StageState
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.exports import purge_exports
from s3t_ray.run.input.ingest import slice_digest
from s3t_ray.run.input.rejects import purge_rejects
from s3t_ray.run.integrity.restored_storage import mend_slices
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.store import layout
from s3t_ray.train.fence import raise_fence

MENDED = "storage_mended"
"""Event: slice files were rewritten from older ones."""


@dataclass(frozen=True)
class Purge:
    """One purge of one shard."""

    run: Run
    epoch: int
    shard: int
    stale: tuple[StageRow, ...]
    """Stages of the shard that are out of service but still have bytes."""
    stopped: tuple[str, ...]
    """Stages whose training a deletion stopped; they were never in the ledger."""

    @property
    def slices(self) -> tuple[SliceState, ...]:
        return self.run.ledger.slices(self.shard)


@dataclass(frozen=True)
class Kind:
    """A kind of data that derives from records."""

    name: str
    root: str | None
    """First folder of its paths in the storage; None if it is outside the storage."""
    erase: Callable[[Purge], None]
    """Erases the stale data of this kind for the shard of the purge."""


def purge_shard(run: Run, epoch: int, shard: int, stopped: Iterable[str] = ()) -> None:
    """Erase everything that the shard's deletions made stale, including its stale stages in the ledger.

    `stopped`: stages whose training a deletion stopped. Call this only when no worker group trains a stage of the
    shard's former data, because it would write what is being erased.
    """
    purge = Purge(run, epoch, shard, run.ledger.stages(shard, StageState.STALE), tuple(stopped))
    run.ledger.beat(epoch)  # an overtaken scheduler must not raise the fence
    if shard != HOLDOUT_SHARD:
        raise_fence(run.store, shard, {state.slice: state.digest for state in purge.slices})
    for kind in KINDS:
        kind.erase(purge)


def purge_bytes(run: Run, stage_id: str) -> None:
    """Erase a stage that is not in the ledger: stopped, refused, or left by a crash."""
    run.store.delete(layout.stage_folder(stage_id))
    run.store.delete(layout.checkpoint_folder(stage_id))


def _erase_checkpoints(purge: Purge) -> None:
    for stage_id in (*(stage.id for stage in purge.stale), *purge.stopped):
        purge.run.store.delete(layout.checkpoint_folder(stage_id))


def _erase_stages(purge: Purge) -> None:
    """Erase adapters, heads and manifests, then record in the ledger that all bytes of these stages are gone."""
    names = [stage.id for stage in purge.stale]
    for stage_id in (*names, *purge.stopped):
        purge.run.store.delete(layout.stage_folder(stage_id))
    if names:
        purge.run.ledger.mark_purged(purge.epoch, names)


def _erase_hidden(purge: Purge) -> None:
    for state in purge.slices:
        purge_hidden(purge.run, purge.shard, state.slice)


def _erase_rows(purge: Purge) -> None:
    """Rewrite slices without the deleted rows (no masking), then erase every file of the slice except the new one."""
    run = purge.run
    for state in purge.slices:
        if run.ledger.tombstones(purge.shard, state.slice) or state.file_digest != state.digest:
            purge_rows(run, purge.epoch, state)
        purge_files(run, purge.epoch, purge.shard, state.slice)


def _erase_replays(purge: Purge) -> None:
    """Erase copies made by `s3t verify --replay` and `s3t audit`; a replay in progress then fails."""
    purge.run.store.delete(layout.REPLAY)


def _erase_rejects(purge: Purge) -> None:
    """Erase rejected rows. They belong to no shard, so only the owner of the held-out data does this."""
    if purge.shard == HOLDOUT_SHARD:
        purge_rejects(purge.run)


def purge_rows(run: Run, epoch: int, state: SliceState) -> None:
    """Rewrite the slice's rows without its tombstoned records, and erase the file that contained them.

    The new digest is computed from the written rows, so a deletion that arrives in the meantime leaves the slice
    unclean, and the next purge handles it.
    """
    if state.file is None:
        raise StoreError(
            f"slice {state.slice} of shard {state.shard} has no file in the ledger",
            "run `s3t train` with the run's config to finish reading its data",
        )
    drop = run.ledger.tombstones(state.shard, state.slice)
    with scratch_folder(run, "purge", layout.slice_folder(state.shard, state.slice)) as folder:
        source = run.store.fetch(state.file, folder)
        if file_sha256(source) != state.file_sha256:
            raise StoreError(
                f"{state.file} was changed outside the run: its bytes are not those recorded in the ledger, so "
                f"{len(drop)} deleted rows cannot be removed from it",
                "restore the file from a copy of the storage, or erase the run and start it again without these "
                "records",
            )
        clean = rewrite_slice(source, folder / "clean.parquet", drop)
        digest = slice_digest(clean.path)
        file = layout.slice_file(state.shard, state.slice, clean.sha256)
        run.store.upload(clean.path, file)
    run.ledger.set_slice_file(epoch, state.shard, state.slice, file, clean.sha256, digest)


def purge_files(run: Run, epoch: int, shard: int, slice_index: int) -> None:
    """Erase every file of the slice except the one in the ledger, and partial files of a killed purge."""
    folder = layout.slice_folder(shard, slice_index)
    run.store.sweep(folder)
    files = run.store.files(folder)
    (state,) = [s for s in run.ledger.slices(shard) if s.slice == slice_index]
    strays = [file for file in files if file != state.file]
    if strays:
        # A file may belong to a newer scheduler that is about to record it in the ledger. That scheduler took its
        # lease before the listing, so this raises.
        run.ledger.beat(epoch)
    for file in strays:
        run.store.delete(file)


def purge_hidden(run: Run, shard: int, slice_index: int) -> None:
    """Erase the slice's stored hidden states that were computed for other digests than the current one.

    Erases entire folders, including temporary files of killed writers. Keeps the folder of the current digest, which
    may still be being written.
    """
    root = layout.hidden_slice_folder(run.row.base_digest, shard, slice_index)
    digests = {place.digest for path in run.store.files(root) if (place := layout.hidden_of(path))}
    here = run.store.local_path(root)
    if here is not None and here.is_dir():  # `files` does not list a folder with only temporary files
        digests |= {child.name for child in here.iterdir()}
    (state,) = [s for s in run.ledger.slices(shard) if s.slice == slice_index]
    for digest in sorted(digests - {state.digest}):
        run.store.delete(f"{root}/{digest}")


def purge_everything_left(run: Run, epoch: int, wanted: frozenset[str]) -> None:
    """Erase, when a scheduler starts, what appeared too late for the purge that should have erased it.

    A storage restored from a backup is repaired first: its slices are older than the ledger, so their retained
    records would otherwise be erased as strays.
    """
    if mended := mend_slices(run, epoch):
        run.ledger.add_event(MENDED, None, {"slices": len(mended)})
    purge_abandoned(run, wanted)
    purge_strays(run, epoch)
    purge_rejects(run)
    purge_exports(run, ())


def purge_finished_checkpoints(run: Run) -> None:
    """Erase the checkpoints of trained stages, whose publisher was killed before it could."""
    found = {name for path in run.store.files(layout.CHECKPOINTS) if (name := layout.stage_of(path))}
    for stage_id in sorted(found & {row.id for row in run.ledger.stages(state=StageState.LIVE)}):
        run.store.delete(layout.checkpoint_folder(stage_id))


def purge_abandoned(run: Run, wanted: frozenset[str]) -> tuple[str, ...]:
    """Erase stages, checkpoints and hidden states that are not in the ledger and not needed.

    They remain after a crash between publishing and acceptance, or if a rank briefly outlives its scheduler. Wanted
    stages stay: they will be accepted or resumed, or are in training. Returns the erased ids.
    """
    # List before reading the ledger, so that newer files are not compared with older rows.
    listed = [path for root in (layout.STAGES, layout.CHECKPOINTS) for path in run.store.files(root)]
    found = {name for path in listed if (name := layout.stage_of(path))}
    states = {place for path in run.store.files(layout.HIDDEN) if (place := layout.hidden_of(path))}
    known = {stage.id for stage in run.ledger.stages() if stage.state is not StageState.PURGED}
    abandoned = tuple(sorted(found - known - wanted))
    for stage_id in abandoned:
        purge_bytes(run, stage_id)
    digests = {state.digest for state in run.ledger.slices()}
    for place in sorted(states):
        if place.digest not in digests:
            run.store.delete(place.folder)
    return abandoned


def purge_strays(run: Run, epoch: int) -> None:
    """Erase slice files that are not in the ledger, left by a process that ingested the data after another had.

    That process ended after rows of its copy were deleted and purged. Call this only while no purge of this epoch is
    in progress, because a purge writes a file before it is in the ledger.
    """
    files = run.store.files(layout.SLICES)
    named = {state.file for state in run.ledger.slices()}
    strays = sorted(set(files) - named)
    if strays and None not in named:  # None: the first ingest is unfinished, so its files are not in the ledger yet
        run.ledger.beat(epoch)  # as in `purge_files`
        for path in strays:
            run.store.delete(path)


KINDS: tuple[Kind, ...] = (
    # The order matters: exported copies go before the storage's own files, so that none can be missed, and the
    # ledger records a stage as purged only when nothing of it is left.
    Kind("copies by `s3t export`", None, lambda purge: purge_exports(purge.run, purge.stale)),
    Kind("mid-stage checkpoints, with optimizer state", layout.CHECKPOINTS, _erase_checkpoints),
    Kind("adapters, heads and manifests of stages", layout.STAGES, _erase_stages),
    Kind("stored hidden states", layout.HIDDEN, _erase_hidden),
    Kind("rows, and at ingest the list of their files", layout.SLICES, _erase_rows),
    Kind("copies of a replay", layout.REPLAY, _erase_replays),
    Kind("rows that ingest set aside", layout.REJECTS, _erase_rejects),
)
