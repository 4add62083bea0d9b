"""Records similar to a deleted one: the sketches of a run's records, and reports of a deletion's duplicates.

In: the run's `closure` settings. Out: signatures for the ledger at ingest, and counts by shortened subject HMAC; never
an id or a content. `ledger/duplicate_records.py` finds the duplicates.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from s3t_ray.config.schema import Config
from s3t_ray.data.minhash import Sketcher
from s3t_ray.data.task_records import task_records
from s3t_ray.ledger.minhash_index import choose_bands
from s3t_ray.ledger.values import DuplicateSearch, Preview, Reach, Similar, Sketching, Twins
from s3t_ray.run.reports import Duplicates, DuplicatesOf, Likeness
from s3t_ray.run.run import Run

SHOWN_DIGITS = 12
"""Hexadecimal digits of a subject's HMAC: enough to tell subjects of a run apart by eye."""


def sketching_of(config: Config) -> Sketching | None:
    """How ingest sketches records; None: it does not."""
    settings = config.closure
    if not settings.near_duplicates:
        return None
    bands, rows = choose_bands(settings.permutations, settings.threshold)
    return Sketching(settings.permutations, settings.shingle_words, bands, rows)


class RunSketcher:
    """Sketches the records of one ingest, and measures the cost."""

    def __init__(self, run: Run) -> None:
        self._sketching = sketching_of(run.config)
        self._sketcher: Sketcher | None = None
        if self._sketching is not None:
            settings = self._sketching
            shingles = task_records(run.config.task).shingles
            self._sketcher = Sketcher(settings.permutations, settings.shingle_words, run.keys.shingle_hash, shingles)
        self._seconds = 0.0
        self._records = 0

    def sketch(self, content: str) -> bytes:
        """The signature of a content; empty if records are not sketched."""
        if self._sketcher is None:
            return b""
        began = time.perf_counter()
        signature = self._sketcher.sketch(content)
        self._seconds += time.perf_counter() - began
        self._records += 1
        return signature

    def tell(self, note: Callable[[str], None]) -> None:
        """Report the cost of the sketches."""
        if self._sketching is not None:
            note(
                f"sketched {self._records:,} records for near-duplicates: {self._seconds:.1f} s, "
                f"{self._sketching.bands} bands of {self._sketching.rows} bytes each"
            )


def asked(run: Run, reach: Reach) -> DuplicateSearch:
    """The search for duplicates of a deletion in this run."""
    return DuplicateSearch(reach, run.config.closure.threshold)


def likeness(found: Preview | Similar, closure: DuplicateSearch, taken_along: int) -> Likeness:
    """A report of the records that the ledger found similar to the named ones."""
    near = found.near_duplicates
    return Likeness(
        duplicates=_duplicates(found.duplicates),
        near_duplicates=None if near is None else _duplicates(near),
        threshold=closure.threshold,
        reach=closure.reach.value,
        taken_along=taken_along,
        forgotten=found.forgotten,
    )


def _duplicates(twins: Twins) -> Duplicates:
    return Duplicates(
        records=twins.records,
        subjects=tuple(
            DuplicatesOf(subject=None if subject is None else subject.hex()[:SHOWN_DIGITS], records=records)
            for subject, records in twins.subjects
        ),
    )
