"""Checks the times in the log's entries against their order and against third-party clocks.

In: entries of a genuine log, and sightings: cosignatures of witnesses and replies of timestamp authorities. Out: one
line per entry whose time is after a sighting of it, or before that of the preceding entry. It cannot detect errors
smaller than the difference between clocks, or wrong times of entries that nobody saw soon after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.consistency import CLOCKS_APART
from s3t_ray.ledger.values import StoredEntry
from s3t_ray.proof.certificate import Certificate
from s3t_ray.proof.export_entry import ExportEntry
from s3t_ray.proof.key_entry import KEY_ENTRIES
from s3t_ray.proof.receipt import SignedReceipt
from s3t_ray.proof.run_entry import RunEntry
from s3t_ray.proof.run_log import name_of, parse_entry
from s3t_ray.proof.signed_entry import SignedEntry


@dataclass(frozen=True)
class Sighting:
    """A third party saw the log's first `size` entries at this time."""

    who: str
    size: int
    at: datetime


def time_problems(stored: Sequence[StoredEntry], seen: Iterable[Sighting] = ()) -> Iterator[str]:
    """Every entry with an impossible time. In a log that an older version started: from where its rows were sealed."""
    earliest = _earliest(seen)
    latest: tuple[datetime, str] | None = None
    covered = False
    for row in stored:
        try:
            entry = parse_entry(row.text)
        except VerificationFailed:
            continue  # reported with the chain
        covered = covered or isinstance(entry, RunEntry)
        at = _made_at(entry)
        if at is None or not covered:
            continue
        if latest is not None and at < latest[0]:
            yield f"{name_of(entry)} was made at {at.isoformat()} by its own word, and {latest[1]} before it later"
        latest = max(latest or (at, name_of(entry)), (at, name_of(entry)), key=lambda each: each[0])
        sighting = next((each for each in earliest if each.size >= row.sequence), None)
        if sighting is not None and at > sighting.at + CLOCKS_APART:
            yield (
                f"{name_of(entry)} was made at {at.isoformat()} by its own word, and {sighting.who} saw it at "
                f"{sighting.at.isoformat()}: the clock of the run was wrong, or was set"
            )


def _earliest(seen: Iterable[Sighting]) -> list[Sighting]:
    """Sightings by size, without those that an earlier sighting of at least as many entries makes redundant."""
    found: list[Sighting] = []
    for each in sorted(seen, key=lambda sighting: sighting.size, reverse=True):
        if not found or each.at < found[-1].at:
            found.append(each)
    return found[::-1]


def _made_at(entry: SignedEntry) -> datetime | None:
    """The time when the entry was made, if it has one; an interim certificate has the times of its steps."""
    if isinstance(entry, SignedReceipt):
        text: str | None = entry.facts.accepted_at
    elif isinstance(entry, Certificate):
        text = entry.facts.restored_at
    elif isinstance(entry, (RunEntry, ExportEntry, *KEY_ENTRIES)):
        text = entry.facts.at
    else:
        text = None
    return None if text is None else _time(text)


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None  # it is signed, so only the key's holder can have written it
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
