"""Refuses to write unless storage, ledger and keys belong to the same run.

A random run id, created with the ledger, is in the ledger and in the storage (`run.json`). The key folder records the
length of the run's log, so a run that was reset to an earlier time is detected even if all of it was reset. In: a
store, a ledger, the config's locations. Out: errors that name what belongs elsewhere.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from s3t_ray.config.location import RunLocation
from s3t_ray.errors import LedgerError, StoreError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import NoLedger
from s3t_ray.proof.signed_entry import ChainHead
from s3t_ray.run.integrity.log_copy import LogCopy
from s3t_ray.run.integrity.published_head import CHECKPOINT, published_beyond
from s3t_ray.store import layout
from s3t_ray.store.store import Store

RUN_FILE = "run.json"
_MEMORY_BYTES = 4096  # size of the file beside the keys, padded


class RunMark(BaseModel):
    """`run.json` in the storage."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    run_id: str
    name: str


class LogMemory(BaseModel):
    """`<run id>.log.json` in the folder of the keys: an entry that the run's log had."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    storage: str
    sequence: int
    hash: str


def read_mark(store: Store) -> RunMark | None:
    """The run mark of the storage; None: there is none. StoreError: it cannot be read."""
    if not store.exists(RUN_FILE):
        return None
    try:
        return RunMark.model_validate_json(store.read_bytes(RUN_FILE))
    except ValidationError as error:
        raise StoreError(
            f"{RUN_FILE} of {store.uri} cannot be understood: {error.errors()[0]['msg']}",
            "restore it from a copy of this run's storage",
        ) from error


def open_ledger(location: RunLocation, store: Store, *, create: bool) -> Ledger:
    """The ledger of `location`; with `create` an empty one where there is none, but never for a storage that has one.

    LedgerError: the storage belongs to a run, and its ledger is not there.
    """
    mark = read_mark(store)
    begun = mark is not None or _has_stages(store)
    try:
        return Ledger.open(location.ledger_url, create=create and not begun)
    except NoLedger as error:
        if not begun:
            raise
        raise LedgerError(
            f"{store.uri} is the storage of {f'run {mark.name!r} ({mark.run_id[:8]})' if mark else 'a run'}, and its "
            f"ledger is not where ledger.url says: {error.problem}; nothing was changed",
            "put ledger.url back as it was when the run began (a lost ledger comes from its backup); a new run needs "
            "its own storage.uri and ledger.url",
        ) from error


def _has_stages(store: Store) -> bool:
    """Whether it is the storage of a run that an earlier version began, which left no mark."""
    return bool(store.files(layout.SLICES) and store.files(layout.STAGES))


def check_together(store: Store, ledger: Ledger, name: str) -> None:
    """LedgerError if this storage and this ledger are not of the same run. Writes nothing."""
    mark, row = read_mark(store), ledger.run()
    if mark is not None:
        if mark.run_id != ledger.run_id:
            other = f"run {row.name!r}" if row else "a run without records"
            raise LedgerError(
                f"{store.uri} is the storage of run {mark.name!r} ({mark.run_id[:8]}), and this ledger is of {other} "
                f"({ledger.run_id[:8]}): they do not belong together; nothing was changed",
                "put ledger.url and storage.uri back as they were when the run began (a lost ledger comes from its "
                "backup); a new run needs its own storage.uri and ledger.url",
            )
        return
    if row is None:
        if _has_stages(store):
            raise LedgerError(
                f"{store.uri} holds the stages of a run, and this ledger is empty: ledger.url was changed or the "
                "ledger was lost; nothing was changed",
                "put ledger.url back as it was, or restore the ledger from its backup; a new run needs a storage.uri "
                "of its own",
            )
        return
    files = [state.file for state in ledger.slices() if state.file is not None]
    if row.name != name or (files and not any(store.exists(file) for file in files)):
        raise LedgerError(
            f"this ledger has run {row.name!r} already, and {store.uri} is not its storage; nothing was changed",
            "give each run its own ledger.url: on one PostgreSQL server a database, or a schema "
            "(?options=-csearch_path%3DNAME); or name the storage.uri of that run",
        )


def begin(store: Store, ledger: Ledger, name: str) -> None:
    """Mark the storage as this ledger's, after `check_together`. LedgerError: the ledger belongs to another storage."""
    if read_mark(store) is not None:
        return
    place = ledger.claim(store.uri)
    if place != store.uri:
        raise LedgerError(
            f"this ledger is of the run whose storage is {place}, not {store.uri}; nothing was changed",
            "give each run its own ledger.url; a storage that was moved needs its run.json",
        )
    mark = RunMark(run_id=ledger.run_id, name=name)
    store.write_bytes(RUN_FILE, mark.model_dump_json().encode())


def remember(folder: Path, run_id: str, storage: str, head: ChainHead) -> None:
    """Record beside the keys that the run's log has this entry.

    This strengthens proofs but is never required, so a read-only folder is left unchanged.
    """
    memory = LogMemory(storage=storage, sequence=head.sequence, hash=head.hash)
    # In place, as one write of fixed length: a rename would take a tenth of a deletion's time.
    text = memory.model_dump_json().encode().ljust(_MEMORY_BYTES)
    with suppress(OSError):
        file = os.open(_memory_file(folder, run_id), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, text, 0)
        finally:
            os.close(file)


def lost_entries(location: RunLocation, ledger: Ledger) -> str | None:
    """What the keys or the log's copy record of this run's log and the ledger lacks; None: nothing."""
    folder, storage = location.keys_dir, location.storage_uri
    copy = LogCopy.of(location.log_copy, ledger.run_id)
    if copy is not None and (lacks := copy.lacks(ledger)) is not None:
        return f"{lacks}: the ledger is older than its copy, or was rewritten"
    memory = _recall(_memory_file(folder, ledger.run_id))
    if memory is not None and ledger.log_hash(memory.sequence) != memory.hash:
        return (
            f"the run's keys have signed entry {memory.sequence} of its log, and the ledger does not have it: the "
            "ledger is older than that, or was rewritten"
        )
    if memory is None:
        for path in sorted(folder.glob("*.log.json")):
            other = _recall(path)
            if other is not None and other.storage == storage:
                return (
                    f"the run's keys have signed for a run {path.name[:8]} in {storage}, and this ledger is of run "
                    f"{ledger.run_id[:8]}: another ledger was put in its place"
                )
    return None


def require_whole(location: RunLocation, ledger: Ledger, store: Store) -> None:
    """LedgerError if the ledger was reset or replaced since these keys last signed or the log was published."""
    lost = lost_entries(location, ledger) or _unpublished(location, ledger, store)
    if lost is not None:
        raise LedgerError(
            f"{lost}; deletions that were accepted since would be undone, so nothing is served, trained or deleted",
            "restore the newest ledger. If there is none, and ledger.log_copy has a copy of the log: `s3t restore` "
            "deletes again what was deleted since. Without a copy: look into the run with `s3t audit`, then move the "
            f"*.log.json files out of {location.keys_dir} and the folder {layout.LOG} out of the storage, delete "
            "again everything that receipts were given for since, and only then serve",
        )


def _unpublished(location: RunLocation, ledger: Ledger, store: Store) -> str | None:
    """A description if the published log has more entries than the ledger; else None."""
    beyond = published_beyond(store, ledger, location.keys_dir)
    if beyond is None:
        return None
    return (
        f"the run's log was published with {beyond[0]} entries ({store.uri}/{CHECKPOINT}), and the ledger has "
        f"{beyond[1]}: the ledger is older than that"
    )


def remembered(folder: Path, run_id: str) -> LogMemory | None:
    """The newest log entry recorded beside the keys; None: there is none, or it cannot be read."""
    return _recall(_memory_file(folder, run_id))


def _memory_file(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.log.json"


def _recall(path: Path) -> LogMemory | None:
    try:
        return LogMemory.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None  # none yet, or a foreign file
