"""Checks that the ledger agrees with its log: every deletion has its receipt and certificates, with matching facts.

In: a snapshot of the ledger. Out: one line per contradiction. `audit/audit.py` checks with the run's key
whether the entries are genuine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Row, select

from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger import deletion_progress
from s3t_ray.ledger.certificate_chain import read_changes
from s3t_ray.ledger.rows import log_rows
from s3t_ray.ledger.rows.export_rows import export_contradictions
from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.ledger.rows.record_rows import require_run
from s3t_ray.ledger.tables import DELETIONS, EVENTS
from s3t_ray.ledger.values import DeletionState, RunRow, StoredEntry
from s3t_ray.proof.certificate import AnyCertificate, CertificateV1, check_sense, receipt_of
from s3t_ray.proof.export_entry import ExportEntry
from s3t_ray.proof.key_entry import KEY_ENTRIES
from s3t_ray.proof.receipt import SignedReceipt, effect_of
from s3t_ray.proof.run_entry import RunEntry
from s3t_ray.proof.run_log import name_of, parse_entry
from s3t_ray.proof.signed_entry import SignedEntry


def log_contradictions(connection: Connection, all_exports_are_in_log: bool = False) -> Iterator[str]:
    """Every contradiction. `all_exports_are_in_log`: a version that logs each export started the run."""
    run = require_run(connection)
    by_deletion: dict[str | None, dict[str, SignedEntry]] = defaultdict(dict)
    unreadable: set[tuple[str | None, str]] = set()
    exports: list[ExportEntry] = []
    begun: RunEntry | None = None
    for stored in log_rows.read_entries(connection):
        try:
            entry = parse_entry(stored.text)
        except VerificationFailed as error:
            yield f"{_what(stored)} cannot be read: {error.problem}"
            unreadable.add((stored.request_id, stored.kind))
            continue
        if (kind := _kind(entry)) != stored.kind:
            yield f"{name_of(entry)} is in the log as {stored.kind!r}, but it is {str(kind)!r}"
        if isinstance(entry, RunEntry):
            begun = entry
        elif isinstance(entry, ExportEntry):
            exports.append(entry)
        elif isinstance(entry, KEY_ENTRIES):
            continue
        elif stored.request_id is None:
            yield f"{name_of(entry)} is in the log, but the ledger has no such deletion"
        else:
            by_deletion[stored.request_id][stored.kind] = entry
    yield from _run(connection, run, begun)
    yield from export_contradictions(connection, exports, all_are_in_log=all_exports_are_in_log)
    for row in connection.execute(select(DELETIONS).order_by(DELETIONS.c.sequence)):
        entries = by_deletion[row.request_id]
        there = frozenset(entries) | {kind for request, kind in unreadable if request == row.request_id}
        yield from _presence(row, there, begun)
        yield from _agreement(connection, run, row, entries)


def _kind(entry: SignedEntry) -> EntryKind:
    """The kind that an entry claims to be."""
    if isinstance(entry, RunEntry):
        return EntryKind.RUN
    if isinstance(entry, ExportEntry):
        return EntryKind.EXPORT
    if isinstance(entry, KEY_ENTRIES):
        return EntryKind.KEY
    if isinstance(entry, AnyCertificate):
        return EntryKind.INTERIM if entry.facts.restored_at is None else EntryKind.CERTIFICATE
    return EntryKind.RECEIPT


def _what(row: StoredEntry) -> str:
    kinds = {EntryKind.RECEIPT: "receipt", EntryKind.CERTIFICATE: "certificate", EntryKind.INTERIM: "certificate"}
    kind = kinds.get(EntryKind(row.kind)) if row.kind in tuple(EntryKind) else None
    if kind is None or row.request_id is None:
        return f"entry {row.sequence} of the log"
    return f"what stands as the {kind} of deletion {row.request_id}"


def _run(connection: Connection, run: RunRow, begun: RunEntry | None) -> Iterator[str]:
    if begun is None:
        return
    said = begun.facts
    now = (run.name, log_rows.read_identity(connection), run.recipe_digest, run.base_digest, run.shards, run.slices)
    if (said.run, said.run_id, said.recipe_digest, said.base_digest, said.shards, said.slices) != now:
        yield "the run's row contradicts the first entry of its log"
    late = ""
    for row in connection.execute(
        select(EVENTS.c.sequence, EVENTS.c.at)
        .where(EVENTS.c.sequence > said.ledger_sequence)
        .order_by(EVENTS.c.sequence)
    ):
        if row.at < max(late, said.at):
            yield f"line {row.sequence} of the history has a time earlier than the line before it"
            return
        late = row.at


def _presence(row: Row[Any], there: frozenset[str], begun: RunEntry | None) -> Iterator[str]:
    """Check that a deletion has exactly the entries of its state."""
    name = f"deletion {row.request_id}"
    final = EntryKind.CERTIFICATE in there
    if (row.state == DeletionState.RESTORED) != final:
        yield f"{name} is {row.state}, but has {'a certificate' if final else 'no certificate'}"
    elif EntryKind.INTERIM in there and DeletionState(row.state).rank < DeletionState.PURGED.rank:
        yield f"{name} is {row.state}, but has a certificate"
    if EntryKind.RECEIPT not in there and begun is not None and row.sequence > begun.facts.ledger_sequence:
        yield f"{name} has no receipt in the log"


def _agreement(connection: Connection, run: RunRow, row: Row[Any], entries: Mapping[str, SignedEntry]) -> Iterator[str]:
    """Check that the entries of a deletion agree with its rows, and make sense."""
    name = f"deletion {row.request_id}"
    receipt = entries.get(EntryKind.RECEIPT)
    for entry in entries.values():
        for what in _unlike(connection, run, row, entry):
            yield f"{name}: the ledger has other {what} than {_short(entry)}"
        if isinstance(entry, AnyCertificate):
            try:
                check_sense(entry)
            except VerificationFailed as error:
                yield error.problem
            knows_receipts = not isinstance(entry, CertificateV1)
            if knows_receipts and receipt is not None and receipt_of(entry) != receipt.hash:
                yield f"{name}: its certificate names another receipt"


def _short(entry: SignedEntry) -> str:
    return "its receipt" if isinstance(entry, SignedReceipt) else "its certificate"


def _unlike(connection: Connection, run: RunRow, row: Row[Any], entry: SignedEntry) -> list[str]:
    """Differences between an entry and the rows of its deletion."""
    slices, pruned = read_changes(connection, row.sequence)
    counts = (row.records, row.already_deleted, row.unknown)
    earlier = deletion_progress.earlier_requests(connection, row.sequence)
    if isinstance(entry, SignedReceipt):
        told = entry.facts
        same = {
            "request": (told.request_id, told.request_digest) == (row.request_id, row.request_digest),
            "counts of records": (told.records, told.already_deleted, told.unknown) == counts,
            "slices or pruned stages": told.effect == effect_of(slices, pruned) and told.stages == len(pruned),
            "earlier requests": told.earlier_requests == earlier,
            "times": told.accepted_at == row.accepted_at,
        }
    elif isinstance(entry, AnyCertificate):
        said = entry.facts
        times = [row.accepted_at, row.pruned_at, row.purged_at]
        same = {
            "request": said.request_id == row.request_id,
            "run": (said.run, said.recipe_digest, said.base_digest) == (run.name, run.recipe_digest, run.base_digest),
            "counts of records": (said.records, said.already_deleted, said.unknown) == counts,
            "slices": said.slices == slices,
            "pruned stages": said.stages_pruned == pruned,
            "earlier requests": said.earlier_requests == earlier,
            "times": [said.accepted_at, said.pruned_at, said.purged_at] == times
            and said.restored_at in (None, row.restored_at),
        }
    else:
        return [f"kind of entry ({name_of(entry)})"]
    return [what for what, is_same in same.items() if not is_same]
