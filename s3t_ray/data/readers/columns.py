"""Maps the data's columns to our names: instruction, input, output, messages, text, label, system, tools, history.

In: a row and the config's column mapping. Out: a row with our names, and the mapping that was used, if any. Common
shapes are recognized automatically; others need `data.columns`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s3t_ray.config.schema import Data, Task
from s3t_ray.config.tasks import TASKS

OURS = ("instruction", "input", "output", "messages", "text", "label", "system", "tools", "history")
MESSAGES = ("messages", "conversations", "conversation")
"""Names of columns with a conversation."""
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
"""Columns that a text model cannot be trained on. A row with content in one of them is refused."""
PAIRS = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
)
"""Pairs of columns recognized as instruction and output. The first pair that a row has is used."""
_CONTEXTS = ("input", "context")


@dataclass(frozen=True)
class Arranged:
    """A row with our column names."""

    row: Mapping[str, object]
    shape: str | None
    """The column mapping that was used; None: the columns already had our names."""


def arrange(row: Mapping[str, object], data: Data, task: Task) -> Arranged:
    """`row` with its columns and roles renamed to ours; everything else is unchanged."""
    arranged = _arranged(row, data, task)
    roles = {theirs: ours for ours, names in data.roles.model_dump().items() for theirs in names}
    messages = arranged.row.get("messages")
    if not roles or not isinstance(messages, list):
        return arranged
    return Arranged({**arranged.row, "messages": [_renamed(message, roles) for message in messages]}, arranged.shape)


def _renamed(message: object, roles: Mapping[str, str]) -> object:
    if not isinstance(message, Mapping):
        return message
    return {
        name: roles.get(value, value) if name in ("role", "from") and isinstance(value, str) else value
        for name, value in message.items()
    }


def _arranged(row: Mapping[str, object], data: Data, task: Task) -> Arranged:
    named = {ours: theirs for ours, theirs in data.columns.model_dump().items() if theirs is not None}
    images = TASKS[task.kind].architecture == "vision"
    if named:
        taken = set(named.values())
        ours = (*OURS, "image") if images else OURS
        kept = {name: value for name, value in row.items() if name not in taken and name not in ours}
        # A configured column that is missing stays missing; no other column replaces it.
        found = {ours: row[theirs] for ours, theirs in named.items() if theirs in row}
        missing = {f"column {theirs!r}": None for theirs in taken if theirs not in row}
        return Arranged({**kept, **found, **missing}, ", ".join(f"{ours}: {theirs}" for ours, theirs in named.items()))
    if TASKS[task.kind].architecture != "decoder":
        return Arranged(row, None)
    conversation = _conversation(row)
    if conversation is not None and conversation != "messages" and row.get("messages") is None:
        return Arranged({**row, "messages": row[conversation]}, f"messages: {conversation}")
    if row.get("messages") is not None or row.get("text") is not None:
        return Arranged(row, None)
    turns = _prompt_and_completion(row)
    if turns is not None:
        return Arranged({**row, "messages": turns}, "messages: prompt and completion")
    for asked, answered in PAIRS:
        if row.get(asked) is None or row.get(answered) is None:
            continue
        if (asked, answered) == ("instruction", "output") and row.get("context") is None:
            return Arranged(row, None)
        given = next((name for name in _CONTEXTS if name != asked and row.get(name) is not None), None)
        arranged = {**row, "instruction": row[asked], "input": row[given] if given else None, "output": row[answered]}
        if (asked, answered, given) == ("instruction", "output", "input"):
            return Arranged(row, None)
        also = f", input: {given}" if given else ""
        return Arranged(arranged, f"instruction: {asked}{also}, output: {answered}")
    return Arranged(row, None)


def wanted_columns(data: Data, present: Sequence[str]) -> list[str]:
    """The columns among `present` that a record may need. The others do not have to be read."""
    named = {theirs for theirs in data.columns.model_dump().values() if theirs is not None}
    known = {*OURS, *MESSAGES, *MEDIA, *_CONTEXTS, *(name for pair in PAIRS for name in pair), *named}
    known |= {name for name in (data.id_field, data.subject_field, "id") if name is not None}
    return [name for name in present if name in known]


def _conversation(row: Mapping[str, object]) -> str | None:
    return next((name for name in MESSAGES if row.get(name) is not None), None)


def _prompt_and_completion(row: Mapping[str, object]) -> list[object] | None:
    """The messages of TRL's prompt and completion columns, with a loss only on the completion."""
    prompt, completion = row.get("prompt"), row.get("completion")
    if not (isinstance(prompt, list) and isinstance(completion, list)):
        return None
    unlearned = [
        {**message, "weight": 0} if isinstance(message, Mapping) and message.get("role") == "assistant" else message
        for message in prompt
    ]
    return [*unlearned, *completion]
