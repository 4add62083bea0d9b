"""One row of anybody's data into a Record: an id, a subject, and content in canonical JSON.

In: a mapping with the fields that `data` names. Out: a Record, or MalformedRow with a reason that
names fields and types and never a value, because reasons end in logs. Must never import torch,
transformers or datasets.

Content is one of
    {"instruction", "input", "output"}                      causal_lm
    {"messages": [{"role", "content"}, ...]}                causal_lm, prompt: chat_template
    {"text"}                                                causal_lm
    {"text", "label"}                                       classification; label is the class name
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s3t_ray.config.schema import Data, Task

ROLES = ("system", "user", "assistant", "tool")
"""Who may speak in a chat message."""

_DERIVED_ID_DOMAIN = b"s3t/id/1"
_ONLY_CONTENT = ("instruction", "output", "messages", "text")


class MalformedRow(ValueError):
    """A row that cannot become a record. Never leaves the data room."""


@dataclass(frozen=True, slots=True)
class Record:
    """One unit of training and of deletion."""

    id: str
    subject: str | None
    content: str  # canonical JSON


def normalise(row: Mapping[str, object], data: Data, task: Task) -> Record:
    """The record that `row` holds, by the fields that `data` names. Raises MalformedRow."""
    content = canonical(_classified(row, task) if task.kind == "classification" else _taught(row, task))
    identity = derive_id(content) if data.id_field is None else _name(row, data.id_field, "id")
    subject: str | None = None
    if data.subject_field is not None:
        if data.subject_field not in row:
            raise MalformedRow(f"field {data.subject_field!r} (data.subject_field) is missing")
        # A record can be of nobody; a row without the field is more likely a slip.
        if row[data.subject_field] is not None:
            subject = _name(row, data.subject_field, "subject")
    return Record(identity, subject, content)


def canonical(content: Mapping[str, object]) -> str:
    """The one JSON text of `content`: sorted keys, no spaces, characters as they are."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def derive_id(content: str) -> str:
    """Id of a record that brings none: `c-` and 32 hex digits of its content's digest.

    Equal contents have equal ids, so a repeated record is found as a duplicate: nobody could ask
    for the deletion of one of the two.
    """
    return f"c-{hashlib.blake2b(content.encode(), digest_size=16, person=_DERIVED_ID_DOMAIN).hexdigest()}"


def _taught(row: Mapping[str, object], task: Task) -> dict[str, object]:
    # Published sets carry the same record in two forms (Alpaca: also as ready text), so the prompt decides.
    if task.prompt == "chat_template" and row.get("messages") is not None:
        return {"messages": _messages(row["messages"])}
    if row.get("instruction") is not None:
        instruction, output = _text(row, "instruction"), _text(row, "output")
        return {"instruction": instruction, "input": _text(row, "input", default=""), "output": output}
    if row.get("text") is not None:
        return {"text": _text(row, "text")}
    if row.get("messages") is not None:
        raise MalformedRow("messages need task.prompt: chat_template")
    found = [name for name in _ONLY_CONTENT if name in row]
    raise MalformedRow(
        "there is neither instruction and output, nor messages, nor text"
        + (f" (null: {', '.join(found)})" if found else "")
    )


def _classified(row: Mapping[str, object], task: Task) -> dict[str, object]:
    label = row.get("label")
    if type(label) is int:
        if not 0 <= label < len(task.labels):
            raise MalformedRow(f"label is a number outside 0..{len(task.labels) - 1}, the rows of task.labels")
        return {"text": _text(row, "text"), "label": task.labels[label]}
    if _text(row, "label") not in task.labels:
        raise MalformedRow(f"label is none of task.labels ({', '.join(task.labels)})")
    return {"text": _text(row, "text"), "label": label}


def _messages(value: object) -> list[dict[str, str]]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
        raise MalformedRow(f"messages is {_type(value)}, not a list of messages")
    messages: list[dict[str, str]] = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            raise MalformedRow(f"message {number} is {_type(message)}, not an object with role and content")
        try:
            role, content = _text(message, "role"), _text(message, "content")
        except MalformedRow as error:
            raise MalformedRow(f"message {number}: {error}") from error
        if role not in ROLES:
            raise MalformedRow(f"message {number}: role is none of {', '.join(ROLES)}")
        messages.append({"role": role, "content": content})
    if messages[0]["role"] == "assistant":
        raise MalformedRow("message 1 has the role assistant, with nothing to answer")
    if not any(message["role"] == "assistant" for message in messages):
        raise MalformedRow("no message has the role assistant, so there is nothing to learn")
    return messages


def _text(row: Mapping[str, object], field: str, default: str | None = None) -> str:
    """The non-blank text of `field`; `default`, where given, for a field that is absent, null or blank."""
    value = row.get(field)
    if value is None:
        if default is not None:
            return default
        raise MalformedRow(f"field {field!r} is missing" if field not in row else f"field {field!r} is null")
    if not isinstance(value, str):
        raise MalformedRow(f"field {field!r} is {_type(value)}, not text")
    if not value.strip():
        if default is not None:
            return default
        raise MalformedRow(f"field {field!r} is empty")
    return _encodable(value, field)


def _name(row: Mapping[str, object], field: str, what: str) -> str:
    """An id or a subject: text, or a whole number in decimal."""
    if field not in row:
        raise MalformedRow(f"field {field!r} (data.{what}_field) is missing")
    value = row[field]
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise MalformedRow(f"field {field!r} (data.{what}_field) is {_type(value)}, not text or a whole number")
    if not value.strip():
        raise MalformedRow(f"field {field!r} (data.{what}_field) is empty")
    return _encodable(value, field)


def _encodable(text: str, field: str) -> str:
    # JSON can spell half of a surrogate pair, which no file, hash or tokenizer takes.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedRow(f"field {field!r} holds half a surrogate pair at character {error.start}") from error
    return text


def _type(value: object) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)
