"""Says which records share an id, and where they are.

Ids are compared without keeping positions, so the data is read a second time, up to the second such record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from s3t_ray.config.schema import Data
from s3t_ray.data.readers.reading import Reading
from s3t_ray.data.records import Record
from s3t_ray.errors import DataError


def find_repeated(
    repeats: Callable[[str], bool], records: Iterable[Record], reading: Reading, data: Data
) -> DataError | None:
    """The error for an id that several of `records` share; None if fewer than two are found.

    `repeats` recognizes the id. `records` is read anew, and must report its position in `reading`.
    """
    found = [(record.id, reading.position) for record in islice((each for each in records if repeats(each.id)), 2)]
    if len(found) < 2:
        return None
    (name, first), (_, second) = found
    field = data.id_field
    of = "" if field == "auto" else f" (field {field!r})"
    what = f"id {name!r}{of}" if field else f"content with derived id {name!r}"
    return DataError(
        f"{what} is in more than one record: {first} and {second}; nothing was kept",
        "give every record its own id" if field else "remove the repeated records, or name data.id_field",
    )
