"""Rows that ingest set aside as malformed. They are not records, so the ledger has none, but they are personal data.

In: an open run. Out: its reject files without the rows of deleted ids and subjects. A row that names neither could be
a deleted person's, so the first purge erases it. Two processes never rewrite one file at the same time
(`Ledger.alone`), or each could bring back what the other removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from s3t_ray.data.readers.read import drop_rejects, reject_names
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.store import layout

Drop = Callable[[str | None, str | None], bool]


@dataclass(frozen=True)
class SetAside:
    """Rejected rows that belong to names in a deletion: their number, and the names (as HMACs) that have some."""

    rows: int
    names: frozenset[bytes]


def find_rejects(run: Run, ids: Mapping[bytes, str], subjects: Mapping[bytes, str]) -> SetAside:
    """The rejected rows of these ids and subjects (by HMAC). Changes nothing."""
    by_id = {name: hmac for hmac, name in ids.items()}
    by_subject = {name: hmac for hmac, name in subjects.items()}
    rows, names = 0, set()
    for path in run.store.files(layout.REJECTS):
        with scratch_folder(run, "rejects", layout.REJECTS) as folder:
            for names_of_row in reject_names(run.store.fetch(path, folder), run.config.data):
                identity, subject = names_of_row or (None, None)
                hit = {by_id.get(identity or ""), by_subject.get(subject or "")} - {None}
                rows += bool(hit)
                names |= hit
    return SetAside(rows, frozenset(name for name in names if name is not None))


def erase_rejects(run: Run, ids: Mapping[bytes, str], subjects: Mapping[bytes, str]) -> SetAside:
    """Immediately erase the rejected rows of these ids and subjects. Returns what was erased."""
    found = find_rejects(run, ids, subjects)
    if found.rows:
        gone_ids, gone_subjects = frozenset(ids.values()), frozenset(subjects.values())
        with _files(run) as files:
            for path in files:
                _rewrite(run, path, lambda identity, subject: identity in gone_ids or subject in gone_subjects)
    return found


def purge_rejects(run: Run) -> None:
    """Erase the rejected rows of every id and subject with a deleted record."""
    with _files(run) as files:
        for path in files:
            _rewrite(run, path, _of_deleted(run, path))


def undeleted_rejects(run: Run, pending: frozenset[int]) -> tuple[int, int]:
    """Number of rejected rows that a purge should have erased by now, and of lines that ingest never wrote.

    `pending`: numbers of deletions in the ledger whose rows may still exist.
    """
    count = junk = 0
    for path in run.store.files(layout.REJECTS):
        drop = _of_deleted(run, path, pending)
        with scratch_folder(run, "rejects", layout.REJECTS) as folder:
            for names in reject_names(run.store.fetch(path, folder), run.config.data):
                junk += names is None
                count += names is not None and drop(*names)
    return count, junk


@contextmanager
def _files(run: Run) -> Iterator[list[str]]:
    """The reject files, locked against other writers. Uses the ledger and the keys only if there are any."""
    if not run.store.files(layout.REJECTS):
        yield []
        return
    with run.ledger.alone():
        run.store.sweep(layout.REJECTS)
        yield run.store.files(layout.REJECTS)


def _of_deleted(run: Run, path: str, pending: frozenset[int] = frozenset()) -> Drop:
    """A test for rows whose id or subject has a deleted record. Queries the ledger once."""
    ids: dict[str, bytes] = {}
    subjects: dict[str, bytes] = {}
    with scratch_folder(run, "rejects", layout.REJECTS) as folder:
        for names in reject_names(run.store.fetch(path, folder), run.config.data):
            identity, subject = names or (None, None)
            if identity is not None:
                ids[identity] = run.keys.id_hmac(identity)
            if subject is not None:
                subjects[subject] = run.keys.subject_hmac(subject)
    deleted = run.ledger.deleted(ids.values(), subjects.values(), pending)

    def drop(identity: str | None, subject: str | None) -> bool:
        return ids.get(identity or "") in deleted or subjects.get(subject or "") in deleted

    return drop


def _rewrite(run: Run, path: str, drop: Drop) -> None:
    with scratch_folder(run, "rejects", layout.REJECTS) as folder:
        kept = Path(folder) / "kept.jsonl"
        if drop_rejects(run.store.fetch(path, folder / "copy"), kept, run.config.data, drop):
            run.store.upload(kept, path)
