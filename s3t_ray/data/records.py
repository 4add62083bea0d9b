"""Converts one row of the data to a Record: an id, a subject, and content in canonical JSON.

In: a mapping with the fields that `data` names. Out: a Record, or a MalformedRow whose message names
fields and types, but never a value, because messages are logged. The task defines the content
(`task_records.py`). Never imports torch, transformers or datasets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from s3t_ray.config.schema import Data
from s3t_ray.data.readers.columns import arrange
from s3t_ray.data.row_fields import MalformedRow, name_field
from s3t_ray.data.task_records import TaskRecords

_DERIVED_ID_DOMAIN = b"s3t/id/1"


@dataclass(frozen=True, slots=True)
class Record:
    """The unit of training and deletion."""

    id: str
    subject: str | None
    content: str  # canonical JSON
    teaches: bool = True
    """Whether it has a labelled token within `task.max_tokens`."""
    shape: str | None = field(default=None, compare=False)
    """The column mapping that was used; None: the columns had our names."""


def normalise(row: Mapping[str, object], data: Data, task: TaskRecords) -> Record:
    """The record in `row`, according to the fields that `data` names. Raises MalformedRow."""
    arranged = arrange(row, data, task.task)
    content = canonical(task.content(arranged.row))
    named = "id" if data.id_field == "auto" else data.id_field
    identity = derive_id(content) if named is None else name_field(row, named, "id")
    subject: str | None = None
    if data.subject_field is not None:
        if data.subject_field not in row:
            raise MalformedRow(f"field {data.subject_field!r} (data.subject_field) is missing")
        # null means that the record belongs to nobody; a missing field is probably a mistake.
        if row[data.subject_field] is not None:
            subject = name_field(row, data.subject_field, "subject")
    return Record(identity, subject, content, shape=arranged.shape)


def canonical(content: Mapping[str, object]) -> str:
    """The canonical JSON of `content`: sorted keys, no spaces, unescaped characters."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def derive_id(content: str) -> str:
    """The id of a record without one: `c-` and 32 hex digits of its content's digest.

    Equal contents have equal ids, so repeated records are detected as duplicates. Otherwise nobody could
    request the deletion of just one of them.
    """
    return f"c-{hashlib.blake2b(content.encode(), digest_size=16, person=_DERIVED_ID_DOMAIN).hexdigest()}"
