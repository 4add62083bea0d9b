"""Ingests data into a run: read -> partition -> Parquet slices -> one ledger transaction.

It writes the files first, named by the hash of their bytes, then an index of them, then the ledger's single
transaction, which makes them part of the run. If it is killed before the transaction, the next start repeats the
ingest. If it is killed later, the next start finds the files through the index. Neither ingests a row twice.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from s3t_ray.data.partition import HOLDOUT, Place, place, places
from s3t_ray.data.readers.read import Check, RejectFile, read_holdout, read_records
from s3t_ray.data.readers.reading import Reading
from s3t_ray.data.readers.repeated_ids import find_repeated
from s3t_ray.data.records import Record
from s3t_ray.data.slices import Row, SliceFile, partition_rows, read_slice
from s3t_ray.data.taught import Taught
from s3t_ray.errors import DataError, LedgerError, StoreError
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.values import DuplicateRecord, RecordEntry, RunRow
from s3t_ray.run.duplicates import RunSketcher, sketching_of
from s3t_ray.run.input.input_changes import tell_changes
from s3t_ray.run.input.input_summary import summarise
from s3t_ray.run.input.placing import asked_for
from s3t_ray.run.input.rejects import purge_rejects
from s3t_ray.run.integrity.config_seal import seal_config
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.store import layout

_ENTRY = struct.Struct(
    "<32s32s32s32s?ii"
)  # id, subject, content, digest, has a subject, shard, slice; a sketch follows
_TOLD_EVERY = 10_000
_DIGESTS_AT_ONCE = 4096


def ingest(run: Run, note: Callable[[str], None], check: Check | None = None) -> None:
    """Ingest the data of the run's config; returns immediately if that is already done.

    `check` encodes each record as training will, so that a record that cannot be learned counts as malformed.
    DataError (and no run is left behind): malformed rows, duplicate ids, missing files, or a shard that would learn
    nothing.
    """
    if run.ledger.run() is not None:
        _finish(run)
        tell_changes(run, note, check)
        return
    made = not Keys.exist(run.location.keys_dir)
    row = run.describe()
    if made:
        note(
            f"made the run's keys in {run.location.keys_dir}: back them up, apart from the run. "
            "Without them no deletion can be matched to its records"
        )
    sketcher = RunSketcher(run)
    with scratch_folder(run, "ingest") as folder:
        note(f"reading records from {run.config.data.path}")
        try:
            with RejectFile(folder / "rejects.jsonl") as rejects, (folder / "entries").open("wb") as entries:
                taught, reading = Taught(run.config), Reading()
                placed = taught.count(_placed(run, rejects, check, reading))
                rows = _keyed(run, placed, sketcher.sketch, entries.write, note)
                files = partition_rows(rows, folder / "slices", places=places(run.config))
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be written: {error.strerror}",
                "free space for a second copy of the data",
            ) from error
        for line in reading.notes():
            note(line)
        taught.tell(note)
        taught.check_shards()
        if run.ledger.run() is not None:
            note("another process has already read the data")
            _finish(run)
            return
        run.store.delete(layout.REJECTS)
        if rejects.count:
            run.store.upload(rejects.path, f"{layout.REJECTS}/rejects.jsonl")
            note(f"{rejects.count} malformed rows set aside in {run.config.storage.uri}/{layout.REJECTS}/rejects.jsonl")
        run.store.write_bytes(
            layout.INPUT_SUMMARY, summarise(run.config.data, reading, taught).model_dump_json().encode()
        )
        uploaded = _upload(run, files)
        try:
            _commit(run, row, folder / "entries")
        except LedgerError:
            _withdraw(run, uploaded)
            raise
        sketcher.tell(note)
    _finish(run)
    states = run.ledger.slices()
    training = sum(state.records for state in states if state.shard != HOLDOUT.shard)
    note(
        f"{training:,} records in {row.shards} shards x {row.slices} slices, "
        f"{sum(s.records for s in states) - training:,} held out"
    )


def _placed(run: Run, rejects: RejectFile, check: Check | None, reading: Reading) -> Iterator[tuple[Place, Record]]:
    config = run.config
    secret = asked_for(run)
    for record in read_records(config.data, config.task, rejects, check, reading):
        yield place(record.id, record.subject, config, secret), record
    for record in read_holdout(config.data, config.task, rejects, check, reading):
        yield HOLDOUT, record


def _keyed(
    run: Run,
    records: Iterable[tuple[Place, Record]],
    sketch: Callable[[str], bytes],
    write: Callable[[bytes], object],
    note: Callable[[str], None],
) -> Iterator[tuple[Place, Row]]:
    """Rows with their keyed digests. Also writes the ledger's part of each row to a temporary file."""
    keys = run.keys
    for count, (spot, record) in enumerate(records, start=1):
        digest = keys.record_digest(record.id, record.content)
        subject = b"" if record.subject is None else keys.subject_hmac(record.subject)
        write(
            _ENTRY.pack(
                keys.id_hmac(record.id),
                subject,
                keys.content_hmac(record.content),
                digest,
                record.subject is not None,
                spot.shard,
                spot.slice,
            )
            + sketch(record.content)
        )
        if count % _TOLD_EVERY == 0:
            note(f"read {count:,} records")
        yield spot, Row(record.id, record.content, digest)


def _entries(path: Path, sketch_bytes: int) -> Iterator[RecordEntry]:
    with path.open("rb") as file:
        while packed := file.read(_ENTRY.size):
            identity, subject, content, digest, has_subject, shard, index = _ENTRY.unpack(packed)
            signature = file.read(sketch_bytes) if sketch_bytes else None
            yield RecordEntry(identity, subject if has_subject else None, content, digest, shard, index, signature)


def _upload(run: Run, files: dict[Place, SliceFile]) -> list[str]:
    """Upload the slice files and their index. Returns the paths of the files."""
    index = []
    for spot, file in sorted(files.items()):
        path = layout.slice_file(spot.shard, spot.slice, file.sha256)
        run.store.upload(file.path, path)
        index.append({"shard": spot.shard, "slice": spot.slice, "file": path, "sha256": file.sha256})
    run.store.write_bytes(layout.SLICE_INDEX, json.dumps(index).encode())
    return [str(item["file"]) for item in index]


def _withdraw(run: Run, uploaded: list[str]) -> None:
    """Erase these files because another process committed first: they may contain rows that it has since deleted."""
    if run.ledger.run() is None:
        return
    named = {state.file for state in run.ledger.slices()}
    if None not in named:  # otherwise the other process still needs the index to find its files
        for path in {*uploaded, layout.SLICE_INDEX} - named:
            run.store.delete(path)
    purge_rejects(run)


def _commit(run: Run, row: RunRow, entries: Path) -> None:
    try:
        sketching = sketching_of(run.config)
        run.ledger.ingest(row, _entries(entries, sketching.permutations if sketching else 0), sketching)
    except DuplicateRecord as error:
        run.store.delete(layout.SLICES)
        run.store.delete(layout.REJECTS)
        raise _named(run, error) from error


def _named(run: Run, error: DuplicateRecord) -> DataError:
    """The same error with the plain id and the places of its records, which the ledger does not have."""
    reading, keys = Reading(), run.keys
    with scratch_folder(run, "find") as folder, RejectFile(folder / "rejects.jsonl") as again:
        records = (record for _, record in _placed(run, again, None, reading))
        found = find_repeated(lambda name: keys.id_hmac(name) == error.id_hmac, records, reading, run.config.data)
    return found or DataError(error.problem, error.fix)


def _finish(run: Run) -> None:
    """Record each slice's file in the ledger, and erase what earlier attempts left. Also completes a killed ingest."""
    seal_config(run)
    epoch = run.ledger.lease().epoch
    lost = [state for state in run.ledger.slices() if state.file is None]
    if not run.store.exists(layout.SLICE_INDEX):
        if not lost:
            return
        raise LedgerError(
            f"run {run.row.name!r}: the ledger has its records, but {layout.SLICE_INDEX} is gone from the storage",
            "restore the storage from a copy, or start the run again with another storage.uri",
        )
    if lost:
        index = {(item["shard"], item["slice"]): item for item in json.loads(run.store.read_bytes(layout.SLICE_INDEX))}
        epoch = run.ledger.take_lease("ingest")
        for state in lost:
            item = index[state.shard, state.slice]
            with scratch_folder(run, "index") as folder:
                digest = slice_digest(run.store.fetch(item["file"], folder))
            run.ledger.set_slice_file(epoch, state.shard, state.slice, item["file"], item["sha256"], digest)
    _erase_strays(run, epoch)
    # The ledger now has all of it. The index contains digests of contents, which must not survive a purge.
    run.store.delete(layout.SLICE_INDEX)


def _erase_strays(run: Run, epoch: int) -> None:
    """Erase the files of an attempt that ended before its transaction.

    Only after one attempt has committed: two processes may have started together, and the one that commits must find
    its files. Not after a scheduler has taken the lease, because it may be about to record such a file.
    """
    files = run.store.files(layout.SLICES)
    kept = {state.file for state in run.ledger.slices()} | {layout.SLICE_INDEX}
    if run.ledger.lease().epoch == epoch:
        for path in files:
            if path not in kept:
                run.store.delete(path)


def slice_digest(path: Path) -> str:
    """The slice digest of the rows in a Parquet file, from the keyed digest stored with each row."""
    total, batch = LtHash16(), []
    for row in read_slice(path):
        batch.append(row.digest)
        if len(batch) == _DIGESTS_AT_ONCE:
            total.add(batch)
            batch = []
    total.add(batch)
    return total.digest()
