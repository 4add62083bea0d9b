"""Every kind of data that derives from records, and how its bytes are erased. The one list.

Whoever adds a new kind of derived data adds its purge here; a test plants a marker in a record and
searches every byte of the storage after the purge.

| kind | where | purged by |
|---|---|---|
| rows | slices/<shard>/<slice>/ | `purge_rows`: written anew without them, then the old file erased |
| stored hidden states | hidden/<base>/<shard>/<slice>/<digest>/ | `purge_hidden`: all but those of the clean digest |
| adapters, heads, manifests | stages/<stage id>/ | `purge_stages` |
| mid-stage checkpoints, optimizer state | checkpoints/<stage id>/ | `purge_stages`, `purge_abandoned` |
| rows that ingest set aside | rejects/ | `purge_rejects` |
| copies by `s3t export` | where the run wrote them | `purge_exports` |
| temporaries | tmp-* | `Store.sweep`, when a scheduler starts |

Each function is idempotent: it may be killed anywhere and called again. Bytes go before the ledger
says that they are gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from s3t_ray.data.read import drop_rejects
from s3t_ray.data.slices import rewrite_slice
from s3t_ray.errors import StoreError
from s3t_ray.ledger.values import SliceState, StageRow, StageState
from s3t_ray.runtime import layout
from s3t_ray.runtime.exports import purge_exports
from s3t_ray.runtime.ingest import slice_digest
from s3t_ray.runtime.run import Run
from s3t_ray.runtime.scratch import scratch_folder


def purge_shard(run: Run, epoch: int, shard: int, stopped: Iterable[str] = ()) -> None:
    """Erase what the shard's deletions so far left behind, and the ledger's stale stages of it.

    `stopped`: stages whose training a deletion ended. Call it only when no worker group trains a
    stage of the shard's former data: it would write what is being erased.
    """
    stale = run.ledger.stages(shard, StageState.STALE)
    purge_exports(run, stale)
    purge_stages(run, epoch, stale)
    for stage_id in stopped:
        purge_bytes(run, stage_id)
    for state in run.ledger.slices(shard):
        if run.ledger.tombstones(shard, state.slice) or state.file_digest != state.digest:
            purge_rows(run, epoch, state)
        purge_hidden(run, shard, state.slice)
    purge_rejects(run)


def purge_bytes(run: Run, stage_id: str) -> None:
    """Erase a stage that the ledger does not know: stopped, refused, or left by a crash."""
    run.store.delete(layout.stage_folder(stage_id))
    run.store.delete(layout.checkpoint_folder(stage_id))


def purge_stages(run: Run, epoch: int, stale: Iterable[StageRow]) -> None:
    """Erase stale stages' adapters, heads, manifests and checkpoints, then say so in the ledger."""
    names = [stage.id for stage in stale]
    for name in names:
        purge_bytes(run, name)
    if names:
        run.ledger.mark_purged(epoch, names)


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
    with scratch_folder(run, "purge") as folder:
        clean = rewrite_slice(run.store.fetch(state.file, folder), folder / "clean.parquet", drop)
        digest = slice_digest(clean.path)
        file = layout.slice_file(state.shard, state.slice, clean.sha256)
        run.store.upload(clean.path, file)
    run.ledger.set_slice_file(epoch, state.shard, state.slice, file, clean.sha256, digest)
    folder_of_slice = file.rsplit("/", 1)[0]
    for other in run.store.files(folder_of_slice):
        if other != file:
            run.store.delete(other)


def purge_hidden(run: Run, shard: int, slice_index: int) -> None:
    """Erase the slice's stored hidden states that were computed for another digest than today's."""
    (state,) = [s for s in run.ledger.slices(shard) if s.slice == slice_index]
    root = f"{layout.HIDDEN}/{run.row.base_digest[:16]}/{layout.shard_folder(shard)}/{slice_index}"
    run.store.sweep(root)  # what a killed upload left has another name, which `files` does not show
    stale = {"/".join(path.split("/")[:5]) for path in run.store.files(root)} - {f"{root}/{state.digest}"}
    for folder in sorted(stale):
        run.store.delete(folder)


def purge_abandoned(run: Run, wanted: frozenset[str]) -> tuple[str, ...]:
    """Erase stages and checkpoints that no ledger row accounts for and nobody wants.

    A crash between a publish and its acceptance leaves them. Wanted ones stay: they are accepted
    (`Scheduler`) or resumed. Returns the ids erased.
    """
    known = {stage.id for stage in run.ledger.stages() if stage.state is not StageState.PURGED}
    found = {path.split("/")[1] for root in (layout.STAGES, layout.CHECKPOINTS) for path in run.store.files(root)}
    abandoned = tuple(sorted(found - known - wanted))
    for stage_id in abandoned:
        purge_bytes(run, stage_id)
    return abandoned


def purge_rejects(run: Run) -> None:
    """Drop set-aside rows of deleted ids and subjects; only where rows were set aside are the keys needed."""
    for path in run.store.files(layout.REJECTS):
        with scratch_folder(run, "rejects") as folder:
            kept = folder / "kept.jsonl"
            dropped = drop_rejects(
                run.store.fetch(path, folder / "copy"),
                kept,
                run.config.data,
                lambda record_id, subject: _is_deleted(run, record_id, subject),
            )
            if dropped:
                run.store.upload(kept, path)


def _is_deleted(run: Run, record_id: str | None, subject: str | None) -> bool:
    ids = () if record_id is None else (run.keys.id_hmac(record_id),)
    subjects = () if subject is None else (run.keys.subject_hmac(subject),)
    answer = run.ledger.preview(ids, subjects)
    return answer.already_deleted > 0
