"""The half of a task that needs no torch: rows into records, records into tokens and labels, prompts into tokens.

In: the `task` section. Out: its TaskRecords, one object per task, found through `config.tasks`. Labels follow Hugging
Face: labels[i] is input_ids[i] where that token is learned and -100 elsewhere; the shift by one is the loss's
business, so labels[0] never counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3t_ray.config.schema import Task
from s3t_ray.config.tasks import TASKS, load_half
from s3t_ray.data.chats.chat import Message
from s3t_ray.data.chats.token_ids import Tokenizer
from s3t_ray.errors import DataError

NO_LOSS = -100
"""Label of a token that is not learned."""


class TeachesNothing(DataError):
    """A record whose response lies beyond `task.max_tokens`: training counts it and passes it by."""


@dataclass(frozen=True, slots=True)
class Example:
    """One record for the model."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """As long as `input_ids` where tokens are learned; empty where the record as a whole is judged."""
    label: int | float | None = None
    """Of the record as a whole: a row of the head, or a number."""
    token_types: tuple[int, ...] = ()
    """Of a pair, for models that tell its texts apart: 0 in the first, 1 in the second; empty: all are 0."""

    @property
    def learned(self) -> int:
        """Predictions that the loss counts: tokens, or the record itself."""
        return 1 if self.label is not None else sum(label != NO_LOSS for label in self.labels[1:])


class TaskRecords(ABC):
    """What a row, a record and a prompt are to one task. Holds no record."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def content(self, row: Mapping[str, object]) -> dict[str, object]:
        """The content of the record that `row` holds. Raises MalformedRow."""

    @abstractmethod
    def encode(self, content: Mapping[str, Any], tokenizer: Tokenizer) -> Example:
        """The example that a record's content becomes, cut from the end to `task.max_tokens`.

        Raises DataError when nothing of the record would be learned, ConfigError when the tokenizer lacks what the
        task needs.
        """

    @abstractmethod
    def prompt(self, prompt: str | Sequence[Message], tokenizer: Tokenizer) -> Example:
        """What the model reads to answer `prompt`, as training would have shown it. Raises DataError, ConfigError."""


def task_records(task: Task) -> TaskRecords:
    """The TaskRecords of `task.kind`."""
    records: TaskRecords = load_half(TASKS[task.kind].records)(task)
    return records
