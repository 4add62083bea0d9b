"""Statistics about one pass over the data, to show to the user: files read and skipped, shapes recognized, repeats.

The readers fill them and their callers report them. They contain only counts and names of files and columns, never
values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

_MOST_NAMED = 5
_Row = TypeVar("_Row")


@dataclass
class Reading:
    """The statistics of reading one `data.path`."""

    files: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Files in the folder that were not read, each with the reason."""
    empty: list[str] = field(default_factory=list)
    """Files that were read but contain no row, such as a failed download or an empty part."""
    shapes: Counter[str] = field(default_factory=Counter)
    """Number of rows per column layout other than our own names."""
    other_split: str | None = None
    """The split that all file names point to, if it is not `data.split`."""
    repeated: int = 0
    """Rows left out because an earlier row has the same content, and so the same derived id."""
    ids_derived: bool = False
    position: str = ""
    """File and line (or row) of the last record that was read."""

    def noted(self, name: str, rows: Iterator[_Row]) -> Iterator[_Row]:
        """Pass `rows` of the file `name` through; record the file as read, and as empty if it has no rows."""
        self.files.append(name)
        first = True
        for row in rows:
            first = False
            yield row
        if first:
            self.empty.append(name)

    def notes(self) -> list[str]:
        """The lines to show to the user."""
        lines = []
        if len(self.files) > 1 or self.skipped:
            lines.append(f"{_files(self.files)} read: {some(self.files)}")
        if self.skipped:
            lines.append(f"{_files(self.skipped)} skipped: {some(self.skipped)}")
        if self.other_split is not None:
            lines.append(f"judging by their names, the files read are of the split {self.other_split}")
        if self.empty:
            lines.append(f"{_files(self.empty)} without a row: {some(self.empty)}")
        lines += [f"{count:,} row{'s' * (count != 1)} taken as {shape}" for shape, count in sorted(self.shapes.items())]
        if self.ids_derived:
            lines.append("the rows have no field 'id': ids are derived from contents (data.id_field: null)")
        if self.repeated:
            lines.append(f"{self.repeated:,} rows repeat the content of an earlier row and were left out")
        return lines


def _files(names: list[str]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names):,} files"


def some(names: list[str]) -> str:
    """The first of `names` and the number of the others."""
    return ", ".join(names[:_MOST_NAMED]) + (
        f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    )
