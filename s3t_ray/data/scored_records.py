"""The task `regression`: a text, or a pair of texts, with a number.

The content is {"text", "label"} or {"text", "pair", "label"}; label is the number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from s3t_ray.data.chats.chat import Message
from s3t_ray.data.chats.token_ids import Tokenizer
from s3t_ray.data.record_texts import encode_texts, prompt_texts, texts_of
from s3t_ray.data.row_fields import MalformedRow, type_name
from s3t_ray.data.task_records import Example, TaskRecords


class ScoredRecords(TaskRecords):
    """Records for which an encoder predicts a number."""

    def content(self, row: Mapping[str, object]) -> dict[str, object]:
        return {**texts_of(row, self.task), "label": _number(row)}

    def encode(self, content: Mapping[str, Any], tokenizer: Tokenizer) -> Example:
        return encode_texts(content, tokenizer, self.task, float(content["label"]))

    def prompt(self, prompt: str | Sequence[Message], tokenizer: Tokenizer) -> Example:
        return encode_texts(prompt_texts(prompt, self.task), tokenizer, self.task, None)


def _number(row: Mapping[str, object]) -> float:
    """The label as a float, so that 5 and 5.0 are the same label. Raises MalformedRow."""
    if "label" not in row:
        raise MalformedRow("field 'label' is missing")
    label = row["label"]
    if isinstance(label, bool) or not isinstance(label, int | float):
        raise MalformedRow(f"field 'label' is {type_name(label)}, not a number")
    try:
        value = float(label)
    except OverflowError as error:
        raise MalformedRow("field 'label' is too large a number") from error
    if not math.isfinite(value):
        raise MalformedRow("field 'label' is not a finite number")
    return value
