"""Converts records to model input: token ids, and labels where there is a loss.

In: a record's content (canonical JSON), a prompt, the base model's tokenizer. Out: an Example. The task decides which
parts have a loss (`task_records.py`). Never imports torch or transformers (the tokenizer is a parameter).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from s3t_ray.config.schema import Task
from s3t_ray.data.chats.chat import Message
from s3t_ray.data.chats.token_ids import Tokenizer
from s3t_ray.data.task_records import NO_LOSS, Example, TeachesNothing, task_records

__all__ = ["NO_LOSS", "Example", "TeachesNothing", "encode", "encode_prompt"]


def encode(content: str, tokenizer: Tokenizer, task: Task) -> Example:
    """Encode a record's content. Raises what `TaskRecords.encode` raises."""
    return task_records(task).encode(json.loads(content), tokenizer)


def encode_prompt(prompt: str | Sequence[Message], tokenizer: Tokenizer, task: Task) -> Example:
    """Encode `prompt` as the model's input. Raises what `TaskRecords.prompt` raises."""
    return task_records(task).prompt(prompt, tokenizer)
