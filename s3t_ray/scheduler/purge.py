"""Erasing everything that derives from deleted records: `KINDS` is the one list of what that is.

A new kind of derived data must be added to `KINDS`, with its purge. `s3t verify` reports every file of the
storage that is under no root of this list. A test plants a marker in each kind and searches every byte of the
storage after the purge.

Beside these kinds the ledger holds what derives from contents (content HMACs, row digests, MinHash
signatures and their bands: `Ledger.advance` to purged erases them), and killed writers leave temporaries
(tmp-*: `Store.sweep`, when a scheduler starts; those of a purge, by the next one of its shard).

Each function is idempotent: it may be killed anywhere and called again. Bytes go before the ledger
says that they are gone.
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
"""Event: slice files were written again from older ones."""


@dataclass(frozen=True)
class Purge:
    """One purge of one shard."""

    run: Run
    epoch: int
    shard: int
    stale: tuple[StageRow, ...]
    """Stages of the shard that are out of service and whose bytes are still there."""
    stopped: tuple[str, ...]
    """Stages whose training a deletion ended: the ledger never knew them."""

    @property
    def slices(self) -> tuple[SliceState, ...]:
        return self.run.ledger.slices(self.shard)


@dataclass(frozen=True)
class Kind:
    """A kind of data that derives from records."""

    name: str
    root: str | None
    """First folder of its paths in the storage; None: it lies outside the storage."""
    erase: Callable[[Purge], None]
    """Erases what deletions made of it by now, for the shard of the purge."""


def purge_shard(run: Run, epoch: int, shard: int, stopped: Iterable[str] = ()) -> None:
    """Erase what the shard's deletions so far left behind, and the ledger's stale stages of it.

    `stopped`: stages whose training a deletion ended. Call it only when no worker group trains a
    stage of the shard's former data: it would write what is being erased.
    """
    purge = Purge(run, epoch, shard, run.ledger.stages(shard, StageState.STALE), tuple(stopped))
    run.ledger.beat(epoch)  # a scheduler that was overtaken raises no fence
    if shard != HOLDOUT_SHARD:
        raise_fence(run.store, shard, {state.slice: state.digest for state in purge.slices})
    for kind in KINDS:
        kind.erase(purge)


def purge_bytes(run: Run, stage_id: str) -> None:
    """Erase a stage that the ledger does not know: stopped, refused, or left by a crash."""
    run.store.delete(layout.stage_folder(stage_id))
    run.store.delete(layout.checkpoint_folder(stage_id))


def _erase_checkpoints(purge: Purge) -> None:
    for stage_id in (*(stage.id for stage in purge.stale), *purge.stopped):
        purge.run.store.delete(layout.checkpoint_folder(stage_id))


def _erase_stages(purge: Purge) -> None:
    """Adapters, heads and manifests; then the ledger is told that all bytes of these stages are gone."""
    names = [stage.id for stage in purge.stale]
    for stage_id in (*names, *purge.stopped):
        purge.run.store.delete(layout.stage_folder(stage_id))
    if names:
        purge.run.ledger.mark_purged(purge.epoch, names)


def _erase_hidden(purge: Purge) -> None:
    for state in purge.slices:
        purge_hidden(purge.run, purge.shard, state.slice)


def _erase_rows(purge: Purge) -> None:
    """Rewritten without the deleted rows, not masked; then every file of the slice but the new one goes."""
    run = purge.run
    for state in purge.slices:
        if run.ledger.tombstones(purge.shard, state.slice) or state.file_digest != state.digest:
            purge_rows(run, purge.epoch, state)
        purge_files(run, purge.epoch, purge.shard, state.slice)


def _erase_replays(purge: Purge) -> None:
    """Copies of `s3t verify --replay` and `s3t audit`: a replay on its way then fails."""
    purge.run.store.delete(layout.REPLAY)


def _erase_rejects(purge: Purge) -> None:
    """They are of no shard: by the owner of the held-out data alone."""
    if purge.shard == HOLDOUT_SHARD:
        purge_rejects(purge.run)


def purge_rows(run: Run, epoch: int, state: SliceState) -> None:
    """Write the slice's rows anew without its tombstoned records, and erase the file that had them.

    The digest of what was written comes from the rows themselves, so a deletion that arrives
    meanwhile leaves the slice unclean, and the next purge takes it.
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
    """Erase every file of the slice but the one that the ledger names, and what a killed purge left half-made."""
    folder = layout.slice_folder(shard, slice_index)
    run.store.sweep(folder)
    files = run.store.files(folder)
    (state,) = [s for s in run.ledger.slices(shard) if s.slice == slice_index]
    strays = [file for file in files if file != state.file]
    if strays:
        # One of them may be a newer scheduler's, which the ledger is about to name. Then its lease was
        # taken before the listing, and this raises.
        run.ledger.beat(epoch)
    for file in strays:
        run.store.delete(file)


def purge_hidden(run: Run, shard: int, slice_index: int) -> None:
    """Erase the slice's stored hidden states that were computed for another digest than today's.

    Whole folders, with the temporaries of killed writers in them. The folder of today's digest may be
    in the making: it stays as it is.
    """
    root = layout.hidden_slice_folder(run.row.base_digest, shard, slice_index)
    digests = {place.digest for path in run.store.files(root) if (place := layout.hidden_of(path))}
    here = run.store.local_path(root)
    if here is not None and here.is_dir():  # `files` does not show a folder that holds temporaries only
        digests |= {child.name for child in here.iterdir()}
    (state,) = [s for s in run.ledger.slices(shard) if s.slice == slice_index]
    for digest in sorted(digests - {state.digest}):
        run.store.delete(f"{root}/{digest}")


def purge_everything_left(run: Run, epoch: int, wanted: frozenset[str]) -> None:
    """For the start of a scheduler: what came too late for the purge that should have erased it.

    A storage from a backup is mended first: its slices are older than the ledger, and all that is retained of them
    would be erased as strays.
    """
    if mended := mend_slices(run, epoch):
        run.ledger.add_event(MENDED, None, {"slices": len(mended)})
    purge_abandoned(run, wanted)
    purge_strays(run, epoch)
    purge_rejects(run)
    purge_exports(run, ())


def purge_finished_checkpoints(run: Run) -> None:
    """Erase the checkpoints of stages that are trained: whoever published them was killed before it could."""
    found = {name for path in run.store.files(layout.CHECKPOINTS) if (name := layout.stage_of(path))}
    for stage_id in sorted(found & {row.id for row in run.ledger.stages(state=StageState.LIVE)}):
        run.store.delete(layout.checkpoint_folder(stage_id))


def purge_abandoned(run: Run, wanted: frozenset[str]) -> tuple[str, ...]:
    """Erase stages, checkpoints and hidden states that no ledger row accounts for and nobody wants.

    A crash between a publish and its acceptance leaves them, and so does a rank that outlives its
    scheduler for a moment. Wanted stages stay: they are accepted, resumed or in training. Returns the
    ids erased.
    """
    # Listed before the ledger is read: what appears meanwhile is not judged by older rows.
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
    """Erase slice files that the ledger does not name: of a process that read the data in when another had.

    It was killed, or it ended, after rows of its copy had been deleted and purged. Call it only while no
    purge of this epoch is on its way: that writes a file before the ledger names it.
    """
    files = run.store.files(layout.SLICES)
    named = {state.file for state in run.ledger.slices()}
    strays = sorted(set(files) - named)
    if strays and None not in named:  # else the first reading has not ended, and its files are not named yet
        run.ledger.beat(epoch)  # as in `purge_files`
        for path in strays:
            run.store.delete(path)


KINDS: tuple[Kind, ...] = (
    # In this order: nothing is erased from the storage while a copy of it outside can be missed, and the
    # ledger hears that a stage is purged once nothing of it is left.
    Kind("copies by `s3t export`", None, lambda purge: purge_exports(purge.run, purge.stale)),
    Kind("mid-stage checkpoints, with optimizer state", layout.CHECKPOINTS, _erase_checkpoints),
    Kind("adapters, heads and manifests of stages", layout.STAGES, _erase_stages),
    Kind("stored hidden states", layout.HIDDEN, _erase_hidden),
    Kind("rows, and at ingest the list of their files", layout.SLICES, _erase_rows),
    Kind("copies of a replay", layout.REPLAY, _erase_replays),
    Kind("rows that ingest set aside", layout.REJECTS, _erase_rejects),
)
