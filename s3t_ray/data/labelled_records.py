"""The task `classification`: a text, or a pair of texts, with the name of its class.

The content is {"text", "label"} or {"text", "pair", "label"}; label is the class name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3t_ray.config.schema import Task
from s3t_ray.data.chats.chat import Message
from s3t_ray.data.chats.token_ids import Tokenizer
from s3t_ray.data.record_texts import encode_texts, prompt_texts, texts_of
from s3t_ray.data.row_fields import MalformedRow, text_field
from s3t_ray.data.task_records import Example, TaskRecords


class LabelledRecords(TaskRecords):
    """Records that an encoder classifies."""

    def content(self, row: Mapping[str, object]) -> dict[str, object]:
        return {**texts_of(row, self.task), "label": class_name(row, self.task)}

    def encode(self, content: Mapping[str, Any], tokenizer: Tokenizer) -> Example:
        return encode_texts(content, tokenizer, self.task, self.task.labels.index(content["label"]))

    def prompt(self, prompt: str | Sequence[Message], tokenizer: Tokenizer) -> Example:
        return encode_texts(prompt_texts(prompt, self.task), tokenizer, self.task, None)


def class_name(row: Mapping[str, object], task: Task) -> str:
    """The class of a row, given by its name or its index in `task.labels`. Raises MalformedRow."""
    labels = task.labels
    label = row.get("label")
    if isinstance(label, str) and label not in labels and label.isascii() and label.isdigit() and len(label) < 6:
        label = int(label)  # CSV files contain only text
    if type(label) is int:
        if not 0 <= label < len(labels):
            raise MalformedRow(f"label is a number outside 0..{len(labels) - 1}, the rows of task.labels")
        return labels[label]
    if text_field(row, "label") not in labels:
        raise MalformedRow(f"label is not one of task.labels ({_some(labels)})", "use the data's class names")
    return str(label)


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
