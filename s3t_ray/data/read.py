"""Records out of files and datasets, streaming; what is malformed is refused with its line, or set aside.

In: the `data` and `task` sections. Out: Records in the order of the input. Memory does not grow with
the data. An id of the data's own that stands twice is not found here: the ledger finds it. Where ids
are derived from content, a repeated content is a malformed row. Must never guess at a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.records import Record, normalise
from s3t_ray.data.row_fields import MalformedRow
from s3t_ray.data.seen_texts import Seen
from s3t_ray.data.sources import RawRow, raw_rows
from s3t_ray.data.task_records import TaskRecords, task_records
from s3t_ray.errors import DataError, StoreError

_TOLD = 20  # malformed rows named in one refusal
_REPEATED = "repeats the content of an earlier row; with data.id_field: null both would have one id"


@dataclass(frozen=True)
class Reject:
    """A row that could not become a record. `line` counts from 1 (rows, where a format has no lines)."""

    source: str
    line: int
    reason: str


class RejectFile:
    """Rows set aside, one JSON object a line: source, line, reason, row.

    It holds personal data as it came in: `drop_rejects` takes a deleted person out of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: TextIO | None = None

    def add(self, reject: Reject, row: object) -> None:
        """Append one row; the file appears with the first."""
        line = {"source": reject.source, "line": reject.line, "reason": reject.reason, "row": row}
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("w", encoding="utf-8")
            self._file.write(json.dumps(line, default=str) + "\n")
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {error.strerror}", "free space or permit writing"
            ) from error
        self.count += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> RejectFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(data: Data, task: Task, rejects: RejectFile | None = None) -> Iterator[Record]:
    """Every record at `data.path`.

    Raises DataError: nothing is there; no record is in it; or, with `on_malformed: refuse`, rows are
    malformed (after the last row, so that one message names the first 20 and counts all). A caller
    must therefore keep nothing of what it got before the end. With `set_aside` malformed rows go to
    `rejects`, which is then required.
    """
    if data.on_malformed == "set_aside" and rejects is None:
        raise DataError("data.on_malformed = set_aside has nowhere to put rows", "give a RejectFile, or use refuse")
    told: list[Reject] = []
    records = malformed = 0
    of_task = task_records(task)
    with Seen() as seen:
        for raw in raw_rows(data):
            try:
                record = _record(raw, data, of_task)
            except MalformedRow as error:
                reject, row = Reject(raw.source, raw.number, str(error)), raw.value
            else:
                if data.id_field is not None or seen.add(record.id):
                    records += 1
                    yield record
                    continue
                # The row itself is in the run already; a second copy would have to be purged apart.
                reject, row = Reject(raw.source, raw.number, _REPEATED), None
            malformed += 1
            if data.on_malformed == "set_aside" and rejects is not None:
                rejects.add(reject, row)
            elif len(told) < _TOLD:
                told.append(reject)
    if malformed and data.on_malformed == "refuse":
        raise _refusal(data, told, malformed)
    if not records:
        raise DataError(
            f"data.path = {data.path} holds no records" + (f" ({malformed} malformed rows)" if malformed else ""),
            "name the file, folder or dataset with the records",
        )


def read_holdout(data: Data, task: Task, rejects: RejectFile | None = None) -> Iterator[Record]:
    """The records of `data.holdout_path`, as `read_records` reads; none when it is not set."""
    if data.holdout_path is not None:
        apart = data.model_copy(update={"path": data.holdout_path, "holdout_path": None})
        yield from read_records(apart, task, rejects)


def drop_rejects(source: Path, target: Path, data: Data, drop: Callable[[str | None, str | None], bool]) -> int:
    """Copy a reject file without the rows whose (id, subject), each as text or None, `drop` tells.

    Returns how many were left out. A row so broken that neither can be read is left out as well:
    nobody could tell whose it is.
    """
    dropped = 0
    with _rejects_told(source), source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as kept:
        for line in lines:
            identity, subject = _reject_names(line, data)
            if (identity is None and subject is None) or drop(identity, subject):
                dropped += 1
            else:
                kept.write(line)
    return dropped


def reject_names(source: Path, data: Data) -> Iterator[tuple[str | None, str | None]]:
    """(id, subject) of every row of a reject file, each as text, or None where it cannot be read."""
    with _rejects_told(source), source.open(encoding="utf-8") as lines:
        for line in lines:
            yield _reject_names(line, data)


def _reject_names(line: str, data: Data) -> tuple[str | None, str | None]:
    row = json.loads(line)["row"]
    return _field(row, data.id_field), _field(row, data.subject_field)


@contextmanager
def _rejects_told(source: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{source} cannot be read or copied: {error}", "restore it, or delete it by hand") from error


def _record(raw: RawRow, data: Data, task: TaskRecords) -> Record:
    if raw.problem is not None:
        raise MalformedRow(raw.problem)
    if not isinstance(raw.value, Mapping):
        raise MalformedRow("not an object with fields")
    return normalise(raw.value, data, task)


def _refusal(data: Data, told: list[Reject], malformed: int) -> DataError:
    lines = "".join(f"\n  {reject.source}:{reject.line}: {reject.reason}" for reject in told)
    more = f"\n  and {malformed - len(told)} more" if malformed > len(told) else ""
    rows = "1 malformed row" if malformed == 1 else f"{malformed} malformed rows"
    return DataError(
        f"{rows} in {data.path}; nothing was kept{lines}{more}",
        "correct them, or set data.on_malformed: set_aside to go on without them",
    )


def _field(row: object, name: str | None) -> str | None:
    value = row.get(name) if isinstance(row, Mapping) and name is not None else None
    return str(value) if type(value) in (str, int) else None
