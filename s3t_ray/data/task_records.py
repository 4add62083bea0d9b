"""The part of a task without torch: rows to records, records to tokens and labels, prompts to tokens.

In: the `task` section. Out: its TaskRecords, one class per task, found through `config.tasks`. Labels follow Hugging
Face's convention: labels[i] is input_ids[i] if that token has a loss and -100 otherwise. The loss applies the shift by
one, so labels[0] never counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s3t_ray.config.schema import Task
from s3t_ray.config.tasks import TASKS, load_half
from s3t_ray.data.chats.chat import Message
from s3t_ray.data.chats.token_ids import Tokenizer
from s3t_ray.data.shingles import text_shingles
from s3t_ray.errors import DataError

if TYPE_CHECKING:
    from s3t_ray.data.images.image_transform import Picture

NO_LOSS = -100
"""The label of a token without a loss."""


class TeachesNothing(DataError):
    """A record has no response within `task.max_tokens`. Training counts it and skips it."""


@dataclass(frozen=True, slots=True)
class Example:
    """One record as model input."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """One label per token for a task that generates text; empty for a task with a label per record."""
    label: int | float | None = None
    """The label of the record: a row of the head, or a number."""
    token_types: tuple[int, ...] = ()
    """For a pair, if the model distinguishes its texts: 0 in the first, 1 in the second; empty: all are 0."""
    picture: Picture | None = None
    """The image of the record, if it has one. Then only the length of `input_ids` matters."""

    @property
    def learned(self) -> int:
        """The number of predictions that the loss counts: tokens, or 1 for the record."""
        return 1 if self.label is not None else sum(label != NO_LOSS for label in self.labels[1:])


class TaskRecords(ABC):
    """Defines how one task handles rows, records and prompts. Holds no records."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def content(self, row: Mapping[str, object]) -> dict[str, object]:
        """The content of the record in `row`. Raises MalformedRow."""

    @abstractmethod
    def encode(self, content: Mapping[str, Any], tokenizer: Tokenizer) -> Example:
        """Encode a record's content, truncated at the end to `task.max_tokens`.

        Raises TeachesNothing if no token would have a loss, DataError if the record cannot be encoded, ConfigError if
        the tokenizer does not support the task.
        """

    @abstractmethod
    def prompt(self, prompt: str | Sequence[Message], tokenizer: Tokenizer) -> Example:
        """Encode `prompt` in the same format as in training. Raises DataError, ConfigError."""

    def shingles(self, content: Mapping[str, Any], words: int) -> list[bytes]:
        """The distinct shingles that measure a record's similarity to others; for text, runs of `words` words."""
        return text_shingles(content, words)


def task_records(task: Task) -> TaskRecords:
    """The TaskRecords of `task.kind`."""
    records: TaskRecords = load_half(TASKS[task.kind].records)(task)
    return records
