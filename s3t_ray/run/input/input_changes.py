"""Reports whether a config's data has changed since its run was started. Changes nothing.

In: an open run that has its data. Out: lines for people. A run keeps the records that it ingested. Rows that were
added, changed or removed since then are reported but not picked up. Files of unchanged size and time are not read
again; data on other machines is not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from s3t_ray.data.readers.read import Check, RejectFile, read_holdout, read_records
from s3t_ray.data.records import Record
from s3t_ray.errors import DataError
from s3t_ray.run.input.input_summary import InputSummary, is_unchanged
from s3t_ray.run.input.placing import begun_with
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder

_AT_ONCE = 2048


@dataclass(frozen=True)
class InputChanges:
    """Rows of the data compared with the records of the run."""

    new: int
    changed: int
    missing: int  # records that are neither in the data nor deleted
    deleted: int  # rows of deleted records, which stay deleted

    def lines(self, path: str) -> list[str]:
        parts = [
            f"{count:,} {what}"
            for count, what in (
                (self.new, "new rows"),
                (self.changed, "rows of another content"),
                (self.missing, "rows missing"),
            )
            if count
        ]
        told = []
        if parts:
            told.append(
                f"{path} has changed since the run read it: {', '.join(parts)}. The run keeps the records that it "
                "read: begin a new run to train on new or changed rows, and delete missing ones with `s3t delete`"
            )
        if self.deleted:
            told.append(f"{self.deleted:,} rows of {path} are of deleted records; they stay deleted")
        return told


def tell_changes(run: Run, note: Callable[[str], None], check: Check | None) -> None:
    """Report how the data differs from the run's records. Silent if it does not, or cannot be compared."""
    summary = run.input_summary
    if begun_with(run) is None and run.config.data.partition_key == "secret":
        note(
            "the run's records lie where its seed alone puts them (an earlier version began it): whoever has its "
            "config and a certificate can narrow down whose it is. Only a new run gets a partition with a secret"
        )
    path = run.config.data.path
    if summary is None:
        return
    if summary.path != path:
        note(
            f"data.path was {summary.path} when the run read its records, and is {path} now. The run keeps its records"
        )
        if not _is_here(path):
            return
        note(f"comparing {path} with the run's records")
    elif not _comparable(summary) or is_unchanged(summary):
        return
    else:
        note(f"{path} was changed since the run read it: comparing")
    try:
        changes = compare(run, check)
    except DataError as error:
        note(f"{path} can no longer be read: {error.problem}. The run keeps the records that it read")
        return
    for line in changes.lines(path):
        note(line)


def compare(run: Run, check: Check | None) -> InputChanges:
    """Read the data again and compare each row with the ledger's keyed digests. DataError as for ingest."""
    new = changed = deleted = seen = 0
    with scratch_folder(run, "compare") as folder, RejectFile(Path(folder) / "rejects") as rejects:
        rows = _rows(run, rejects, check)
        while batch := list(islice(rows, _AT_ONCE)):
            names = run.keys.id_hmacs([record.id for record in batch])
            states = run.ledger.record_states(names)
            for record, name in zip(batch, names, strict=True):
                state = states.get(name)
                if state is None:
                    new += 1
                elif state.deleted:
                    deleted += 1
                else:
                    seen += 1
                    changed += state.digest != run.keys.record_digest(record.id, record.content)
    held = sum(state.records for state in run.ledger.slices())
    return InputChanges(new, changed, held - seen, deleted)


def _rows(run: Run, rejects: RejectFile, check: Check | None) -> Iterator[Record]:
    yield from read_records(run.config.data, run.config.task, rejects, check)
    yield from read_holdout(run.config.data, run.config.task, rejects, check)


def _comparable(summary: InputSummary) -> bool:
    return all(file.size >= 0 for file in summary.files)


def _is_here(path: str) -> bool:
    """Whether the data is on this machine: what must be downloaded is not compared."""
    return "://" not in path.removeprefix("file://") and Path(path.removeprefix("file://")).expanduser().exists()
