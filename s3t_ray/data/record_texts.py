"""Builds an encoder's input, a text or a pair of texts, from templates over a row's fields.

In: `task.text` and `task.pair`, such as "{premise}". Out: texts, and their token ids with the tokenizer's special
tokens, one of which the encoder pools. Fields are inserted unchanged; nothing in them is interpreted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from s3t_ray.config.schema import Task
from s3t_ray.config.tasks import template_fields
from s3t_ray.data.chats.chat import Message
from s3t_ray.data.chats.token_ids import Tokenizer
from s3t_ray.data.row_fields import MalformedRow, text_field
from s3t_ray.data.task_records import Example
from s3t_ray.errors import DataError


def texts_of(row: Mapping[str, object], task: Task) -> dict[str, object]:
    """The `text` of a record's content, and its `pair` if the task has one. Raises MalformedRow."""
    content: dict[str, object] = {"text": _filled(task.text, row)}
    if task.pair is not None:
        content["pair"] = _filled(task.pair, row)
    return content


def encode_texts(content: Mapping[str, Any], tokenizer: Tokenizer, task: Task, label: float | None) -> Example:
    """Encode a record's texts. Of a pair, the longer text is truncated first."""
    # Request token types explicitly, because not every tokenizer's settings declare them.
    pair = {"text_pair": content["pair"], "return_token_type_ids": True} if "pair" in content else {}
    encoded = tokenizer(
        content["text"],
        add_special_tokens=True,
        split_special_tokens=True,
        truncation=True,
        max_length=task.max_tokens,
        **pair,
    )
    types = tuple(encoded.get("token_type_ids", ())) if pair else ()
    return Example(tuple(encoded["input_ids"]), (), label, types if any(types) else ())


def prompt_texts(prompt: str | Sequence[Message], task: Task) -> dict[str, object]:
    """The texts to classify or score: `prompt` itself, or the fields in it if the templates name several.

    In the latter case `prompt` is a JSON object. Raises DataError.
    """
    if not isinstance(prompt, str):
        raise DataError(f"a {task.kind} model reads one text, not chat messages", "send a text")
    fields = template_fields(task.text) + template_fields(task.pair or "")
    if len(set(fields)) == 1 and task.pair is None:
        row: object = {fields[0]: prompt}
    else:
        try:
            row = json.loads(prompt)
        except ValueError:
            row = None
    shape = ", ".join(f'"{name}": "..."' for name in dict.fromkeys(fields))
    if not isinstance(row, dict):
        raise DataError("the prompt is not a JSON object with a record's fields", f"send {{{shape}}}")
    try:
        return texts_of(row, task)
    except MalformedRow as error:
        raise DataError(f"the prompt is not valid: {error}", f"send {{{shape}}}") from error


def _filled(template: str, row: Mapping[str, object]) -> str:
    return template.format_map({name: text_field(row, name) for name in template_fields(template)})
