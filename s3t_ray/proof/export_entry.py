"""The entries by which a log tells of weights that left the storage: where they went, and that they are gone.

So an export cannot be hidden from the purge that must erase it, nor made up: who writes the ledger has no key to sign.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from s3t_ray.proof.signed_entry import RunFacts, SignedEntry


class ExportFacts(RunFacts):
    """What was exported, or is no longer there."""

    at: str
    what: Literal["noted", "erased"]
    """noted: it is about to be written; erased: its files are gone, or were never written."""
    folder: str
    shard: int
    stages: tuple[str, ...]
    files: tuple[str, ...]


class ExportEntry(SignedEntry):
    """The entry."""

    format: Literal["s3t/export/1"] = "s3t/export/1"
    facts: ExportFacts


def still_there(entries: Iterable[SignedEntry]) -> dict[str, ExportFacts]:
    """By folder, the exports that the log (oldest entry first) tells of and whose files nobody has erased since."""
    there: dict[str, ExportFacts] = {}
    for entry in entries:
        if not isinstance(entry, ExportEntry):
            continue
        if entry.facts.what == "noted":
            there[entry.facts.folder] = entry.facts
        else:
            there.pop(entry.facts.folder, None)
    return there
