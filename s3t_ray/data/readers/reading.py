"""What one reading of the data found on its way, for people: files read and skipped, shapes recognised, repeats.

Filled by the readers, told by whoever reads. Counts and names of files and columns only: never a value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_MOST_NAMED = 5


@dataclass
class Reading:
    """Of one `data.path`."""

    files: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Files of the folder that were not read, each with the reason."""
    shapes: Counter[str] = field(default_factory=Counter)
    """Rows by how their columns were taken, where that is not by our own names."""
    repeated: int = 0
    """Rows left out because an earlier row has the same content, and so the same derived id."""
    ids_derived: bool = False

    def notes(self) -> list[str]:
        """Lines to show."""
        lines = []
        if len(self.files) > 1 or self.skipped:
            lines.append(f"{len(self.files):,} files read: {_some(self.files)}")
        if self.skipped:
            lines.append(f"{len(self.skipped):,} files skipped: {_some(self.skipped)}")
        lines += [f"{count:,} row{'s' * (count != 1)} taken as {shape}" for shape, count in sorted(self.shapes.items())]
        if self.ids_derived:
            lines.append("the rows have no field 'id': ids are derived from contents (data.id_field: null)")
        if self.repeated:
            lines.append(f"{self.repeated:,} rows repeat the content of an earlier row and were left out")
        return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (
        f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    )
