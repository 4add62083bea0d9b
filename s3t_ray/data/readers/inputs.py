"""Records into what a model sees: token ids, and labels where there is a loss.

In: a record's content (canonical JSON), a prompt, the base model's tokenizer. Out: an Example. What is learned of a
record is the task's business (`task_records.py`). Must never import torch or transformers (the tokenizer is given).
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
    """The example that a record's content becomes. Raises as `TaskRecords.encode`."""
    return task_records(task).encode(json.loads(content), tokenizer)


def encode_prompt(prompt: str | Sequence[Message], tokenizer: Tokenizer, task: Task) -> Example:
    """What the model reads to answer `prompt`. Raises as `TaskRecords.prompt`."""
    return task_records(task).prompt(prompt, tokenizer)
