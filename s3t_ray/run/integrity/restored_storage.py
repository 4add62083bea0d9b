"""Cleans a storage from a backup that is older than its ledger, by the tombstones, and keeps all retained records.

The ledger names a slice's newest file, but the backup has an older one, with rows that were deleted since. The retained
rows, identified with the run's keys, are rewritten: the same rows in the same order give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from s3t_ray.data.slice_file import Row, read_slice, write_slice
from s3t_ray.errors import StoreError
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.values import SliceState
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.store import layout

_ROWS_AT_ONCE = 2048


def mend_slices(run: Run, epoch: int) -> tuple[str, ...]:
    """Rewrite every slice file that the ledger names and the storage lacks. Returns the written files.

    Call this before strays are erased. StoreError: the files in a slice's folder lack some of its retained rows;
    nothing was erased.
    """
    files = frozenset(run.store.files(layout.SLICES))
    mended = []
    for state in run.ledger.slices():
        if state.file is not None and state.file not in files:
            folder = state.file.rpartition("/")[0]
            older = sorted(path for path in files if path.rpartition("/")[0] == folder)
            if older:
                mended.append(_mend(run, epoch, state, older))
    return tuple(mended)


def _mend(run: Run, epoch: int, state: SliceState, older: list[str]) -> str:
    for path in older:
        with scratch_folder(run, "mend") as folder:
            rows = _retained(run, state, run.store.fetch(path, folder))
            total = LtHash16()
            total.add(row.digest for row in rows)
            if total.digest() != state.digest:
                continue
            clean = write_slice(folder / "clean.parquet", rows)
            file = layout.slice_file(state.shard, state.slice, clean.sha256)
            run.store.upload(clean.path, file)
        run.ledger.set_slice_file(epoch, state.shard, state.slice, file, clean.sha256, state.digest)
        return file
    raise StoreError(
        f"{state.file} is not in the storage, and what lies beside it does not hold the {state.records} records that "
        f"are retained there: the storage is not the newest, or of another run; nothing was erased",
        "restore the storage from its newest copy",
    )


def _retained(run: Run, state: SliceState, path: Path) -> list[Row]:
    """The rows of this file that the ledger retains in this slice, by their contents and the run's keys."""
    kept: list[Row] = []
    batch: list[Row] = []

    def take() -> None:
        names = [run.keys.id_hmac(row.id) for row in batch]
        known = run.ledger.record_states(names)
        for row, name in zip(batch, names, strict=True):
            record = known.get(name)
            if record is None or record.deleted or (record.shard, record.slice) != (state.shard, state.slice):
                continue
            if record.digest == row.digest == run.keys.record_digest(row.id, row.content):
                kept.append(row)
        batch.clear()

    for row in read_slice(path):
        batch.append(row)
        if len(batch) == _ROWS_AT_ONCE:
            take()
    take()
    return kept
