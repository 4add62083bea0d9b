"""Repeats every later deletion in a run that was restored from a backup, before anything is served.

In: a run that is older than the copy of its log (`log_copy.py`). Out: the same run with those deletions accepted again.
The copy is checked first, entry by entry, with the run's key, and must reach as far as the run's keys remember and as
the log was published. A repeated deletion has the same id and a new receipt: the run's log continues from the backup,
under the current key, and the entries that it lost stay next to the copy, with their signatures. A witness sees this
fork, and must be told about it. If it is killed at any point, the same call continues.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from s3t_ray.errors import ConfigError, LedgerError, VerificationFailed
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.proof.receipt import SignedReceipt
from s3t_ray.proof.run_log import signing_key_after, verify_chain
from s3t_ray.proof.signed_entry import SignedEntry, pem_of
from s3t_ray.run.integrity.log_copy import LogCopy, NamedHashes, search_of
from s3t_ray.run.integrity.published_head import published_beyond
from s3t_ray.run.integrity.restored_log import follow_key, renote_exports, withdraw
from s3t_ray.run.integrity.run_identity import remembered
from s3t_ray.run.log.issued_certificates import log_keys
from s3t_ray.run.log.published_log import publish
from s3t_ray.run.run import Run

RESTORED = "restored_from_backup"
"""Event of the history: number of lost log entries and of repeated deletions."""


_MADE_ALONG = (EntryKind.KEY, EntryKind.EXPORT)
"""Kinds of entries, besides deletions, that a killed restore may have added to the log."""


@dataclass(frozen=True)
class Restored:
    """The result of a restore."""

    lost_entries: int
    deletions: tuple[str, ...]
    """Requests that were accepted again, in their original order."""


def restore(run: Run, note: Callable[[str], None]) -> Restored:
    """Repeat all deletions in the copy of the log. `run`: from `Run.open_unchecked`.

    ConfigError: there is no copy. VerificationFailed: it is not genuine. LedgerError: the copy is too short, the ledger
    is of another history, or the names of a deletion are missing; nothing was changed.
    """
    copy = run.log_copy
    if copy is None:
        raise ConfigError(
            "the run's config names no ledger.log_copy: nothing knows what was deleted since the backup was taken",
            "take the receipts that were given out since, and delete by name with `s3t delete`",
        )
    _finish(copy)
    texts = copy.texts()
    keys = Keys.load(run.location.keys_dir, signing_key_after(texts[-1]) if texts else None)
    run.ledger.check_key(keys.key_check)
    entries = _genuine(run, keys, texts)
    kept, lost = _lost(run, entries)
    if not lost:
        return Restored(0, ())
    again = [entry for entry in lost if isinstance(entry, SignedReceipt)]
    named = [_named(copy, keys, receipt) for receipt in again]
    follow_key(run, keys, lost, note)
    renote_exports(run, entries)
    for receipt, names in zip(again, named, strict=True):
        made = run.ledger.accept_deletion(
            [bytes.fromhex(name) for name in names.ids],
            [bytes.fromhex(name) for name in names.subjects],
            search_of(names),
            receipt.facts.commitment,
        )
        if made.receipt.request_id != receipt.facts.request_id or made.receipt.records != receipt.facts.records:
            was, now = receipt.facts.records, made.receipt.records
            note(f"deletion {receipt.facts.request_id} took {was} records at first, and {now} now")
    withdraw(run, copy, kept)
    _begin_anew(copy, run, named, lost)
    publish(run)
    return Restored(len(lost), tuple(receipt.facts.request_id for receipt in again))


def _genuine(run: Run, keys: Keys, texts: Sequence[str]) -> tuple[SignedEntry, ...]:
    """The entries of the copy. VerificationFailed: no key of the run signed them, or they are not a chain."""
    for key in log_keys(run, keys.public_key_pem).spans:
        with suppress(VerificationFailed):
            return verify_chain(texts, pem_of(bytes.fromhex(key)))
    return verify_chain(texts, keys.public_key_pem)  # raises with the reason


def _lost(run: Run, entries: tuple[SignedEntry, ...]) -> tuple[int, list[SignedEntry]]:
    """The number of common entries, and those the ledger lacks. LedgerError: the copy is too short, or they diverge."""
    ours, copied = [row.hash for row in run.ledger.log()], [entry.hash for entry in entries]
    common = next((at for at, pair in enumerate(zip(ours, copied, strict=False)) if pair[0] != pair[1]), None)
    if common is None:
        common = min(len(ours), len(copied))
    lost = list(entries[common:])
    memory = remembered(run.location.keys_dir, run.ledger.run_id)
    if memory is not None and memory.hash not in {*ours, *copied}:
        raise LedgerError(
            f"the run's keys have signed entry {memory.sequence} of its log, and the copy of it ends at entry "
            f"{len(copied)}: deletions could be missing; nothing was changed",
            "use the newest copy of the log, or the newest ledger",
        )
    beyond = published_beyond(run.store, run.ledger, run.location.keys_dir)
    if beyond is not None and beyond[0] > len(copied):
        raise LedgerError(
            f"the run's log was published with {beyond[0]} entries, and the copy of it ends at entry {len(copied)}: "
            "deletions could be missing; nothing was changed",
            "use the newest copy of the log, or the newest ledger",
        )
    asked = {entry.facts.request_id for entry in lost if isinstance(entry, SignedReceipt)}
    strangers = [
        row for row in run.ledger.log()[common:] if row.request_id not in asked and row.kind not in _MADE_ALONG
    ]
    if lost and strangers:
        raise LedgerError(
            f"the ledger went on after entry {common} with entries that the copy of its log does not have: they are of "
            "two histories; nothing was changed",
            "run `s3t audit` to investigate, and restore a ledger that the copy continues",
        )
    return common, lost


def _named(copy: LogCopy, keys: Keys, receipt: SignedReceipt) -> NamedHashes:
    found = copy.named(receipt.facts.request_id, keys)
    if found is None:
        raise LedgerError(
            f"{copy.folder} has the receipt of deletion {receipt.facts.request_id} and not what it names; nothing was "
            "changed",
            "use the newest ledger, or another copy of its log",
        )
    return found


def _begin_anew(copy: LogCopy, run: Run, named: list[NamedHashes], lost: list[SignedEntry]) -> None:
    """Replace the copy with one of the current log; the former copy stays beside it."""
    run.ledger.add_event(RESTORED, None, {"entries": len(lost), "deletions": len(named), "head": lost[-1].hash})
    run.remember()  # the run stays refused until the next lines, because its copy has other entries
    former = copy.folder.with_name(f"{copy.folder.name}.until-{lost[-1].hash[:16]}")
    fresh = _fresh(copy)
    for names in _all_names(copy, run, named):
        fresh.add_sealed(names)
    fresh.catch_up(run.ledger)
    os.rename(copy.folder, former)
    os.rename(fresh.folder, copy.folder)


def _finish(copy: LogCopy) -> None:
    """Finish a restore that was killed between its last two steps."""
    if not copy.folder.exists() and (fresh := _fresh(copy)).folder.exists():
        os.rename(fresh.folder, copy.folder)


def _fresh(copy: LogCopy) -> LogCopy:
    return LogCopy(copy.folder.with_name(f"{copy.folder.name}.new"))


def _all_names(copy: LogCopy, run: Run, named: list[NamedHashes]) -> list[NamedHashes]:
    earlier = (copy.named(row.receipt.request_id, run.keys) for row in run.ledger.deletions())
    return [*named, *(names for names in earlier if names is not None and names not in named)]
