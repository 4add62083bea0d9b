"""Streams records from files and datasets. Malformed rows are refused with their line, or set aside.

In: the `data` and `task` sections. Out: Records in input order. Memory does not grow with the data.
Duplicate ids are not detected here but by the ledger. If ids are derived from the content, a row with
repeated content is malformed. Never guesses the meaning of a row.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TextIO

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.reading import Reading
from s3t_ray.data.readers.sources import RawRow, has_splits, raw_rows
from s3t_ray.data.records import Record, normalise
from s3t_ray.data.row_fields import MalformedRow, RepeatedField
from s3t_ray.data.seen_texts import Seen
from s3t_ray.data.task_records import TaskRecords, task_records
from s3t_ray.data.unicode_text import is_unicode
from s3t_ray.errors import DataError, StoreError

Check = Callable[[str], tuple[str, bool]]
"""A record's content -> the content to keep, and whether it has a labelled token. Raises MalformedRow."""

_TOLD = 20  # malformed rows listed in an error
_MOST_FIXES = 3
_SHOWN = 80  # characters shown of an id
_REPEATED = "repeats the content of an earlier row; with data.id_field: null both would have the same id"


@dataclass(frozen=True)
class Reject:
    """A row that is not a valid record. `line` counts from 1 (rows, if the format has no lines)."""

    source: str
    line: int
    reason: str
    id: str | None = None


class RejectFile:
    """A file of rows set aside, with one JSON object per line: source, line, reason, row.

    It contains personal data from the input. `drop_rejects` removes a deleted person from it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: TextIO | None = None

    def add(self, reject: Reject, row: object) -> None:
        """Append one row. The first one creates the file. Raises StoreError if it cannot be written."""
        line = {"source": reject.source, "line": reject.line, "reason": reject.reason, "row": row}
        with self._told():
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("w", encoding="utf-8")
            self._file.write(json.dumps(line, default=_plain) + "\n")
        self.count += 1

    def close(self) -> None:
        """Close the file, if one was opened. Raises StoreError if its last rows cannot be written."""
        file, self._file = self._file, None
        if file is not None:
            with self._told():  # closing writes the last buffered rows
                file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {error.strerror}", "free space, or allow writing"
            ) from error

    def __enter__(self) -> RejectFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(
    data: Data,
    task: Task,
    rejects: RejectFile | None = None,
    check: Check | None = None,
    reading: Reading | None = None,
) -> Iterator[Record]:
    """Every record at `data.path`. `check` encodes each one as for training (`record_check.py`); fills `reading`.

    Raises DataError if there is no data or no record, or if rows are malformed with `on_malformed:
    refuse`. The latter is raised after the last row, so that one message lists the first 20 and counts
    all. Callers must therefore not use any record before the end. With `set_aside`, malformed rows go to
    `rejects`, which is then required.
    """
    if data.on_malformed == "set_aside" and rejects is None:
        raise DataError("data.on_malformed = set_aside needs a file for the rows", "pass a RejectFile, or use refuse")
    told: list[Reject] = []
    fixes: dict[str, None] = {}
    records = malformed = 0
    reading = reading or Reading()
    auto = data.id_field == "auto"
    of_task = task_records(task)
    with Seen() as seen:
        for raw in raw_rows(data, reading):
            if data.id_field == "auto" and raw.problem is None and isinstance(raw.value, Mapping):
                data = data.model_copy(update={"id_field": "id" if "id" in raw.value else None})
                reading.ids_derived = data.id_field is None
            try:
                if auto and data.id_field is None:
                    _check_no_id(raw)
                record = _record(raw, data, of_task)
                if check is not None:
                    content, teaches = check(record.content)
                    record = replace(record, content=content, teaches=teaches)
            except MalformedRow as error:
                reject, row = Reject(raw.source, raw.number, str(error), _field(raw.value, data.id_field)), raw.value
                if error.fix is not None:
                    fixes[error.fix] = None
            else:
                if data.id_field is not None or seen.add(record.id):
                    records += 1
                    reading.position = f"{raw.source}:{raw.number}"
                    if record.shape is not None:
                        reading.shapes[record.shape] += 1
                    yield record
                    continue
                if auto:
                    reading.repeated += 1
                    continue
                # The row is in the run already; a copy in the reject file would have to be purged separately.
                reject, row = Reject(raw.source, raw.number, _REPEATED), None
            malformed += 1
            if data.on_malformed == "set_aside" and rejects is not None:
                rejects.add(reject, row)
            elif len(told) < _TOLD:
                told.append(reject)
    if malformed and data.on_malformed == "refuse":
        raise _refusal(data, told, malformed, list(fixes))
    if not records:
        raise DataError(
            f"data.path = {data.path} holds no records" + (f" ({malformed} malformed rows)" if malformed else ""),
            "set data.path to the file, folder or dataset with the records",
        )


def read_holdout(
    data: Data,
    task: Task,
    rejects: RejectFile | None = None,
    check: Check | None = None,
    reading: Reading | None = None,
) -> Iterator[Record]:
    """The records of `data.holdout_path` or `data.holdout_split`, as from `read_records`; none if neither is set."""
    if data.holdout_split is not None:
        if not has_splits(data):
            raise DataError(
                f"data.holdout_split = {data.holdout_split}: {data.path} has no splits",
                "name a Hugging Face dataset with splits, or use data.holdout or data.holdout_path",
            )
        apart = data.model_copy(update={"split": data.holdout_split, "holdout_split": None})
        for record in read_records(apart, task, rejects, check, reading):
            yield replace(record, id=f"{data.holdout_split}:{record.id}")
    if data.holdout_path is not None:
        apart = data.model_copy(update={"path": data.holdout_path, "holdout_path": None})
        yield from read_records(apart, task, rejects, check, reading)


def drop_rejects(source: Path, target: Path, data: Data, drop: Callable[[str | None, str | None], bool]) -> int:
    """Copy a reject file without the rows for which `drop(id, subject)`, each as text or None, is true.

    Returns the number of dropped rows. Also drops rows in which neither can be read, and lines that ingest did not
    write, because nobody can tell whose they are. Raises StoreError if a file cannot be read or written.
    """
    dropped = 0
    with _rejects_told(source), source.open("rb") as lines, target.open("wb") as kept:
        for line in lines:
            names = _reject_names(line, data)
            if names is None or names == (None, None) or drop(*names):
                dropped += 1
            else:
                kept.write(line)
    return dropped


def reject_names(source: Path, data: Data) -> Iterator[tuple[str | None, str | None] | None]:
    """(id, subject) of every row in a reject file, each as text, or None if the row has none.

    None instead of the pair: a line that ingest did not write. Raises StoreError if the file cannot be read.
    """
    with _rejects_told(source), source.open("rb") as lines:
        for line in lines:
            yield _reject_names(line, data)


def _reject_names(line: bytes, data: Data) -> tuple[str | None, str | None] | None:
    try:
        row = json.loads(line)["row"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    names = _field(row, data.id_field), _field(row, data.subject_field)
    return names if all(name is None or is_unicode(name) for name in names) else None


@contextmanager
def _rejects_told(source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{source} cannot be read or copied: {error}", "restore it, or delete it by hand") from error


def _record(raw: RawRow, data: Data, task: TaskRecords) -> Record:
    if raw.problem is not None:
        raise MalformedRow(raw.problem)
    if isinstance(raw.value, RepeatedField):
        raise MalformedRow(str(raw.value), "remove one of the two")
    if not isinstance(raw.value, Mapping):
        raise MalformedRow("not an object with fields")
    return normalise(raw.value, data, task)


def _check_no_id(raw: RawRow) -> None:
    """Raise MalformedRow if a row has an id although the first row has none."""
    if isinstance(raw.value, Mapping) and raw.value.get("id") is not None:
        raise MalformedRow(
            "field 'id' is present, but the first row has none",
            "give every row an id, or set data.id_field: null to derive all ids from contents",
        )


def _plain(value: object) -> str:
    """Convert a value that JSON has no type for: an image's bytes to base64, anything else to text."""
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else str(value)


def _refusal(data: Data, told: list[Reject], malformed: int, fixes: list[str]) -> DataError:
    lines = "".join(f"\n  {reject.source}:{reject.line}: {reject.reason}{_id(reject)}" for reject in told)
    more = f"\n  and {malformed - len(told)} more" if malformed > len(told) else ""
    rows = "1 malformed row" if malformed == 1 else f"{malformed} malformed rows"
    return DataError(
        f"{rows} in {data.path}; nothing was kept{lines}{more}",
        "; or ".join(
            [*fixes[:_MOST_FIXES], "correct them, or set data.on_malformed: set_aside to continue without them"]
        ),
    )


def _id(reject: Reject) -> str:
    return "" if reject.id is None else f" (id {reject.id[:_SHOWN]!r})"


def _field(row: object, name: str | None) -> str | None:
    name = "id" if name == "auto" else name
    value = row.get(name) if isinstance(row, Mapping) and name is not None else None
    return str(value) if type(value) in (str, int) else None
