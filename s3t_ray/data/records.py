"""One row of anybody's data into a Record: an id, a subject, and content in canonical JSON.

In: a mapping with the fields that `data` names. Out: a Record, or MalformedRow with a reason that
names fields and types and never a value, because reasons end in logs. Must never import torch,
transformers or datasets.

Content is one of
    {"instruction", "input", "output"}                      causal_lm
    {"messages": [{"role", "content", ...}, ...]}           causal_lm, prompt: chat_template; tool_calls, name,
                                                            reasoning_content, weight: 0 and tools where there are some
    {"text"}                                                causal_lm
    {"text", "label"}                                       classification; label is the class name
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.columns import MEDIA, arrange
from s3t_ray.data.messages import ROLES, history_of, messages_of, tools_of, with_system
from s3t_ray.data.row_values import MalformedRow, encodable, text_of, type_name

__all__ = ["ROLES", "MalformedRow", "Record", "canonical", "derive_id", "normalise"]

_DERIVED_ID_DOMAIN = b"s3t/id/1"
_ONLY_CONTENT = ("instruction", "output", "messages", "text")


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


def normalise(row: Mapping[str, object], data: Data, task: Task) -> Record:
    """The record that `row` holds, by the fields that `data` names. Raises MalformedRow."""
    arranged = arrange(row, data, task)
    taken = arranged.row
    content = canonical(_classified(taken, task) if task.kind == "classification" else _taught(taken, data, task))
    named = "id" if data.id_field == "auto" else data.id_field
    identity = derive_id(content) if named is None else _name(row, named, "id")
    subject: str | None = None
    if data.subject_field is not None:
        if data.subject_field not in row:
            raise MalformedRow(f"field {data.subject_field!r} (data.subject_field) is missing")
        # A record can be of nobody; a row without the field is more likely a slip.
        if row[data.subject_field] is not None:
            subject = _name(row, data.subject_field, "subject")
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


def _taught(row: Mapping[str, object], data: Data, task: Task) -> dict[str, object]:
    _refuse_media(row)
    # Published sets carry the same record in two forms (Alpaca: also as ready text), so the prompt decides.
    if task.prompt == "chat_template" and row.get("messages") is not None:
        return _conversation(messages_of(row["messages"], data.roles), row)
    if row.get("instruction") is not None:
        instruction, output = text_of(row, "instruction"), text_of(row, "output")
        given = text_of(row, "input", default="")
        earlier = history_of(row["history"]) if row.get("history") else []
        system, tools = text_of(row, "system", default=""), tools_of(row.get("tools"))
        if not (earlier or system or tools):
            return {"instruction": instruction, "input": given, "output": output}
        if task.prompt != "chat_template":
            extra = "history" if earlier else "system" if system else "tools"
            raise MalformedRow(f"field {extra!r} needs task.prompt: chat_template", "set task.prompt: chat_template")
        asked = f"{instruction}\n\n{given}" if given else instruction
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": output}]
        return _conversation([*earlier, *turns], row)
    if row.get("text") is not None:
        return {"text": text_of(row, "text")}
    if row.get("messages") is not None:
        raise MalformedRow("messages need task.prompt: chat_template", "set task.prompt: chat_template")
    found = [name for name in _ONLY_CONTENT if name in row]
    raise MalformedRow(
        "there is neither instruction and output, nor messages, nor text"
        + (f" (null: {', '.join(found)})" if found else f" (its columns: {', '.join(map(str, [*row][:12]))})"),
        "name the columns in data.columns, such as columns: {instruction: question, output: answer} (docs/data.md)",
    )


def _conversation(messages: list[dict[str, Any]], row: Mapping[str, object]) -> dict[str, object]:
    system, tools = text_of(row, "system", default=""), tools_of(row.get("tools"))
    content: dict[str, object] = {"messages": with_system(messages, system or None)}
    return content if tools is None else {**content, "tools": tools}


def _refuse_media(row: Mapping[str, object]) -> None:
    for name in MEDIA:
        if row.get(name):
            raise MalformedRow(
                f"field {name!r} is not empty, and only text can be trained on", "remove the rows with images or sound"
            )


def _classified(row: Mapping[str, object], task: Task) -> dict[str, object]:
    label = row.get("label")
    if isinstance(label, str) and label not in task.labels and label.isascii() and label.isdigit() and len(label) < 6:
        label = int(label)  # a CSV file has only text
    if type(label) is int:
        if not 0 <= label < len(task.labels):
            raise MalformedRow(f"label is a number outside 0..{len(task.labels) - 1}, the rows of task.labels")
        return {"text": text_of(row, "text"), "label": task.labels[label]}
    if text_of(row, "label") not in task.labels:
        raise MalformedRow(
            f"label is none of task.labels ({', '.join(task.labels)})", "name the classes as the data does"
        )
    return {"text": text_of(row, "text"), "label": label}


def _name(row: Mapping[str, object], field: str, what: str) -> str:
    """An id or a subject: text, or a whole number in decimal."""
    if field not in row:
        raise MalformedRow(
            f"field {field!r} (data.{what}_field) is missing",
            "name the field that holds the ids in data.id_field, or set data.id_field: null to derive ids from contents"
            if what == "id"
            else f"name another field in data.{what}_field, or remove it",
        )
    value = row[field]
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise MalformedRow(f"field {field!r} (data.{what}_field) is {type_name(value)}, not text or a whole number")
    if not value.strip():
        raise MalformedRow(f"field {field!r} (data.{what}_field) is empty")
    return encodable(value, field)
