"""Encodes every record once at ingest, so that training never fails on a record that ingest accepted.

In: a record's content, the tokenizer, the task. Out: the content to keep, and whether it has a labelled token. A record
that the chat template or the tokenizer refuses is a malformed row. Never imports torch or transformers.
"""

from __future__ import annotations

import json
from typing import Any

from s3t_ray.config.schema import Task
from s3t_ray.config.tasks import TASKS
from s3t_ray.data.chats.control_tokens import control_tokens
from s3t_ray.data.chats.token_ids import Tokenizer
from s3t_ray.data.readers.inputs import Example, TeachesNothing, encode
from s3t_ray.data.records import canonical
from s3t_ray.data.row_fields import MalformedRow
from s3t_ray.data.text_records import ENCODING
from s3t_ray.errors import DataError

_CONTENT_OF_THE_FIRST_ENCODING = {"role", "content"}


class RecordCheck:
    """Encodes records as for training."""

    def __init__(self, tokenizer: Tokenizer, task: Task) -> None:
        self._tokenizer = tokenizer
        self._task = task

    def __call__(self, content: str) -> tuple[str, bool]:
        """Return (content to keep, whether it has a labelled token). Raises MalformedRow if it cannot be encoded.

        The content gets an `encoding` field if the first encoding would give different ids.
        """
        if TASKS[self._task.kind].architecture == "vision":
            return content, True  # its image was decoded when the row was read
        record = json.loads(content)
        if TASKS[self._task.kind].architecture == "encoder":
            return content, self._classified(content)
        if not self._needs_second(record):
            return content, self._example(content) is not None
        named = canonical({**record, "encoding": ENCODING})
        second = self._example(named)
        if _is_plain(record) and self._first(content) == second:
            return content, second is not None
        return named, second is not None

    def _needs_second(self, record: dict[str, Any]) -> bool:
        if "messages" in record or self._task.prompt == "chat_template":
            return "text" not in record or self._spells_control(record["text"])
        return any(self._spells_control(value) for value in record.values())

    def _spells_control(self, text: str) -> bool:
        return control_tokens(self._tokenizer).are_in(text)

    def _first(self, content: str) -> Example | DataError | None:
        try:
            return self._encoded(content)
        except DataError as error:
            return error

    def _example(self, content: str) -> Example | None:
        try:
            return self._encoded(content)
        except DataError as error:
            raise MalformedRow(error.problem) from error

    def _encoded(self, content: str) -> Example | None:
        try:
            return encode(content, self._tokenizer, self._task)
        except TeachesNothing:
            return None

    def _classified(self, content: str) -> bool:
        example = encode(content, self._tokenizer, self._task)
        frame = encode(canonical({**json.loads(content), "text": "a"}), self._tokenizer, self._task).input_ids
        for name, number in control_tokens(self._tokenizer).ids.items():
            if number != self._tokenizer.unk_token_id and example.input_ids.count(number) > frame.count(number):
                raise MalformedRow(f"its text contains {name!r}, which the tokenizer reads as its own token")
        return True


def _is_plain(record: dict[str, Any]) -> bool:
    """Whether the first encoding supports all fields of the record."""
    messages = record.get("messages", ())
    return "tools" not in record and all(message.keys() <= _CONTENT_OF_THE_FIRST_ENCODING for message in messages)
