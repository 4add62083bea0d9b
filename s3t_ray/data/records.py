"""One row of anybody's data into a Record: an id, a subject, and content in canonical JSON.

In: a mapping with the fields that `data` names. Out: a Record, or MalformedRow with a reason that
names fields and types and never a value, because reasons end in logs. What the content holds is the task's
business (`task_records.py`). Must never import torch, transformers or datasets.
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
    """One unit of training and of deletion."""

    id: str
    subject: str | None
    content: str  # canonical JSON
    teaches: bool = True
    """Whether it has anything to learn from, within `task.max_tokens`."""
    shape: str | None = field(default=None, compare=False)
    """How its columns were taken; None: by our own names."""


def normalise(row: Mapping[str, object], data: Data, task: TaskRecords) -> Record:
    """The record that `row` holds, by the fields that `data` names. Raises MalformedRow."""
    arranged = arrange(row, data, task.task)
    content = canonical(task.content(arranged.row))
    named = "id" if data.id_field == "auto" else data.id_field
    identity = derive_id(content) if named is None else name_field(row, named, "id")
    subject: str | None = None
    if data.subject_field is not None:
        if data.subject_field not in row:
            raise MalformedRow(f"field {data.subject_field!r} (data.subject_field) is missing")
        # A record can be of nobody; a row without the field is more likely a slip.
        if row[data.subject_field] is not None:
            subject = name_field(row, data.subject_field, "subject")
    return Record(identity, subject, content, shape=arranged.shape)


def canonical(content: Mapping[str, object]) -> str:
    """The one JSON text of `content`: sorted keys, no spaces, characters as they are."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def derive_id(content: str) -> str:
    """Id of a record that brings none: `c-` and 32 hex digits of its content's digest.

    Equal contents have equal ids, so a repeated record is found as a duplicate: nobody could ask
    for the deletion of one of the two.
    """
    return f"c-{hashlib.blake2b(content.encode(), digest_size=16, person=_DERIVED_ID_DOMAIN).hexdigest()}"
