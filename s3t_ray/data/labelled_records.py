"""The task classification: a text with the name of its class.

Content is {"text", "label"}; label is the class name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3t_ray.data.chat import Message
from s3t_ray.data.row_fields import MalformedRow, text_field
from s3t_ray.data.task_records import Example, TaskRecords
from s3t_ray.data.token_ids import Tokenizer
from s3t_ray.errors import DataError


class LabelledRecords(TaskRecords):
    """Records that an encoder sorts into classes."""

    def content(self, row: Mapping[str, object]) -> dict[str, object]:
        labels = self.task.labels
        label = row.get("label")
        if type(label) is int:
            if not 0 <= label < len(labels):
                raise MalformedRow(f"label is a number outside 0..{len(labels) - 1}, the rows of task.labels")
            return {"text": text_field(row, "text"), "label": labels[label]}
        if text_field(row, "label") not in labels:
            raise MalformedRow(f"label is none of task.labels ({', '.join(labels)})")
        return {"text": text_field(row, "text"), "label": label}

    def encode(self, content: Mapping[str, Any], tokenizer: Tokenizer) -> Example:
        return Example(self._ids(content["text"], tokenizer), (), self.task.labels.index(content["label"]))

    def prompt(self, prompt: str | Sequence[Message], tokenizer: Tokenizer) -> Example:
        if not isinstance(prompt, str):
            raise DataError("a classification model judges one text, not the messages of a chat", "send a text")
        return Example(self._ids(prompt, tokenizer), ())

    def _ids(self, text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
        # Here the tokenizer's own special tokens belong: an encoder pools at one of them.
        ids = tokenizer(
            text,
            add_special_tokens=True,
            split_special_tokens=True,
            truncation=True,
            max_length=self.task.max_tokens,
        )["input_ids"]
        return tuple(ids)
