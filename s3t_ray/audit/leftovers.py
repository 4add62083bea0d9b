"""Finds bytes in the storage that should not exist: of purged stages, deleted rows, former data, dead replays.

In: an open run. Out: one line per problem. Reads only. Work in progress is not a problem: deletions that are not purged
yet still have bytes, and a stage in training has checkpoints.

It knows the kinds of data that a purge erases (`purge.KINDS`) and the exports that the run wrote. It also reports files
in the storage of no known kind. It does not look for copies elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from s3t_ray.config.location import CONFIG_FILE, LEDGER_FILE
from s3t_ray.errors import S3TError
from s3t_ray.ledger.values import DeletionRow, DeletionState, StageState
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.input.rejects import undeleted_rejects
from s3t_ray.run.integrity.config_seal import CONFIG_SEAL
from s3t_ray.run.integrity.run_identity import RUN_FILE
from s3t_ray.run.log.published_log import is_of_log
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.purge import KINDS
from s3t_ray.store import layout
from s3t_ray.store.published_stage import PublishedStage
from s3t_ray.train.fence import Fence, fence_file

_OWN_FILES = frozenset(
    {
        CONFIG_FILE,
        CONFIG_SEAL,
        RUN_FILE,
        layout.INPUT_SUMMARY,
        *(f"{LEDGER_FILE}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")),
    }
)
"""Files of the run that are not derived from records; the ledger erases its own data about records."""

ACCEPTANCE_SECONDS = 2.0
"""Seconds after which a published stage is accepted or erased; a live scheduler sends a heartbeat in this time."""


def unfinished(run: Run) -> tuple[DeletionRow, ...]:
    """Exactly the deletions whose bytes may still exist."""
    states = (DeletionState.ACCEPTED, DeletionState.PRUNED)
    return tuple(deletion for deletion in run.ledger.deletions() if deletion.state in states)


def left_behind(run: Run, views: Mapping[int, ShardView], since: int) -> Iterator[str]:
    """Every problem. Remaining bytes of unfinished deletions are not a problem; those of all others are.

    `since`: see `sealed_since`.
    """
    yield from left_unnamed(run, views, since)
    pending = unfinished(run)
    rows, junk = undeleted_rejects(run, frozenset(deletion.number for deletion in pending))
    if rows:
        yield f"{layout.REJECTS}: {rows} rows set aside at ingest belong to deleted ids or subjects"
    if junk:
        yield f"{layout.REJECTS}: {junk} lines are not rows that ingest set aside: the next purge erases them"


def left_unnamed(run: Run, views: Mapping[int, ShardView], since: int) -> Iterator[str]:
    """The part that does not need the run's secret."""
    pending = unfinished(run)
    yield from _of_no_kind(run)
    yield from _fences(run, pending, since)
    yield from _temporaries(run)
    yield from _stages(run, views)
    yield from _checkpoints(run, views)
    yield from _slices(run)
    yield from _hidden(run, pending)
    yield from _exports(run, pending)


def _of_no_kind(run: Run) -> Iterator[str]:
    """Data that no purge would ever erase: of an unlisted kind, or not of the run."""
    roots = {kind.root for kind in KINDS}
    fences = {fence_file(shard) for shard in range(run.row.shards)}
    exported = {Path(export.folder, name) for export in run.ledger.exports.all() for name in export.files}
    for path in run.store.files():
        known = layout.kind_root(path) in roots or path in _OWN_FILES or path in fences or is_of_log(path)
        if not known and run.store.local_path(path) not in exported:
            yield f"{path} is not a kind of file that this run writes: no deletion erases it, so move it elsewhere"


def _fences(run: Run, pending: Iterable[DeletionRow], since: int) -> Iterator[str]:
    """Check that each fence names the data of the last purge; a wrong fence stops workers or admits stale ones."""
    purged = {hit.shard for row in run.ledger.deletions() if row.number > since for hit in row.receipt.hits}
    moving = {hit.shard for row in pending for hit in row.receipt.hits}
    for shard in sorted(set(range(run.row.shards)) - moving):
        path = fence_file(shard)
        if not run.store.exists(path):
            if shard in purged:
                yield f"{path} is gone: a worker that was suspended before the last purge would not be stopped"
            continue
        try:
            fence = Fence.model_validate_json(run.store.read_bytes(path))
        except ValidationError:
            yield f"{path} is not a fence that a purge wrote"
            continue
        if fence.slices != {str(state.slice): state.digest for state in run.ledger.slices(shard)}:
            yield f"{path} names data other than what is retained"


def _temporaries(run: Run) -> Iterator[str]:
    """Files of killed writers. A scheduler sweeps them when it starts, so while one runs they belong to a writer."""
    found = frozenset(run.store.temporaries())
    if not found:
        return
    before = run.ledger.lease()
    threading.Event().wait(ACCEPTANCE_SECONDS)
    if run.ledger.lease() != before:
        return
    for path in sorted(found.intersection(run.store.temporaries())):
        yield f"{path} is an unfinished file of a killed process (or of one running now outside the scheduler)"


def _stages(run: Run, views: Mapping[int, ShardView]) -> Iterator[str]:
    present = _folders(run, layout.STAGES)
    known = _known(run)
    if present - known:
        threading.Event().wait(ACCEPTANCE_SECONDS)
        known, present = _known(run), present & _folders(run, layout.STAGES)
    wanted = {name for view in views.values() for name in view.plan.stages}
    for name in sorted(present - known):
        folder = layout.stage_folder(name)
        if name in wanted:
            yield f"{folder} is not live: the ledger has not accepted it (interrupted, or put there by hand)"
        else:
            yield f"{folder} holds bytes of a stage that should be gone"
    for name in sorted(present & known):
        yield from _foreign(run, name)


def _foreign(run: Run, name: str) -> Iterator[str]:
    """Files in a stage's folder that its manifest does not name."""
    try:
        published = PublishedStage.open(run.store, name)
    except S3TError:
        return  # being purged; `verify` reports it for a live stage
    for file in published.strange_files():
        yield f"{published.folder}/{file} was not published with its stage"


def _checkpoints(run: Run, views: Mapping[int, ShardView]) -> Iterator[str]:
    wanted = {name for view in views.values() for name in view.plan.stages}
    stale = {row.id for row in run.ledger.stages(state=StageState.STALE)}
    for name in sorted(_folders(run, layout.CHECKPOINTS) - wanted - stale):
        yield f"{layout.checkpoint_folder(name)} holds checkpoints of a stage that is not needed"


def _slices(run: Run) -> Iterator[str]:
    found = run.store.files(layout.SLICES)
    named = {state.file for state in run.ledger.slices()}  # read after the listing, so never older
    for path in found:
        if path not in named and run.store.exists(path):
            yield f"{path} should be gone"


def _hidden(run: Run, pending: Iterable[DeletionRow]) -> Iterator[str]:
    """Check that hidden states are stored under the place and digest of retained data."""
    excused = {(layout.shard_folder(hit.shard), str(hit.slice)) for row in pending for hit in row.receipt.hits}
    found = {place for path in run.store.files(layout.HIDDEN) if (place := layout.hidden_of(path))}
    kept = {
        layout.hidden_place(run.row.base_digest, state.shard, state.slice, state.digest)
        for state in run.ledger.slices()
        if state.shard != HOLDOUT_SHARD
    }
    for place in sorted(found - kept):
        if (place.shard, place.slice) not in excused and run.store.files(place.folder):
            yield f"{place.folder} holds hidden states of data that is not retained"


def _exports(run: Run, pending: Iterable[DeletionRow]) -> Iterator[str]:
    excused = {name for row in pending for name in row.receipt.stages}
    purged = {row.id for row in run.ledger.stages(state=StageState.PURGED)} - excused
    for export in run.ledger.exports.all():
        gone = purged.intersection(export.stages)
        if gone and any(Path(export.folder, name).exists() for name in export.files):
            yield f"the export at {export.folder} holds weights of {len(gone)} purged stages"


def _folders(run: Run, root: str) -> frozenset[str]:
    return frozenset(name for path in run.store.files(root) if (name := layout.stage_of(path)))


def _known(run: Run) -> frozenset[str]:
    return frozenset(row.id for row in run.ledger.stages() if row.state is not StageState.PURGED)
