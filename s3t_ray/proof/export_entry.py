"""Entries about weights that left the storage: where they were written, and that they are erased.

They prevent an attacker with write access to the ledger, but no key, from hiding an export from its purge, or from
inventing one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from s3t_ray.proof.signed_entry import RunFacts, SignedEntry


class ExportFacts(RunFacts):
    """An export, or its erasure."""

    at: str
    what: Literal["noted", "erased"]
    """noted: about to be written; erased: its files are gone, or were never written."""
    folder: str
    shard: int
    stages: tuple[str, ...]
    files: tuple[str, ...]


class ExportEntry(SignedEntry):
    """The entry."""

    format: Literal["s3t/export/1"] = "s3t/export/1"
    facts: ExportFacts


def still_there(entries: Iterable[SignedEntry]) -> dict[str, ExportFacts]:
    """By folder, the exports in the log (oldest entry first) that have not been erased since."""
    there: dict[str, ExportFacts] = {}
    for entry in entries:
        if not isinstance(entry, ExportEntry):
            continue
        if entry.facts.what == "noted":
            there[entry.facts.folder] = entry.facts
        else:
            there.pop(entry.facts.folder, None)
    return there
