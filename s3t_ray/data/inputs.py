"""Records into what a model sees: token ids, and labels where there is a loss.

In: a record's content (canonical JSON) and the base model's tokenizer. Out: an Example. Training and
generation share the templates below, so a prompt gets the same ids in both. Must never import torch
or transformers (the tokenizer is given), and never leave the start of a response to the tokenizer:
prompt and response are tokenised apart, and their ids put together.

Labels follow Hugging Face: labels[i] is input_ids[i] where that token is learned and -100 elsewhere;
the shift by one is the loss's business, so labels[0] never counts.

A record's content can name its `encoding`. Without one it is encoded as the first version did; 2 says that control
tokens spelled in its text are text, and that a conversation is encoded in one pass. Ingest names it where the two
differ (`record_check.py`), so that runs of earlier versions stay as they were trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3t_ray.config.schema import Task
from s3t_ray.data.chat import Message, Part, chat_parts
from s3t_ray.data.chat_template import chat_template
from s3t_ray.data.control_tokens import control_tokens
from s3t_ray.data.conversation import conversation_parts, conversation_prompt
from s3t_ray.data.token_ids import Tokenizer, begin_ids, end_id, text_ids
from s3t_ray.errors import DataError

NO_LOSS = -100
"""Label of a token that is not learned."""
ENCODING = 2
"""How records are encoded whose content says so."""

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


class TeachesNothing(DataError):
    """A record whose response lies beyond `task.max_tokens`: training counts it and passes it by."""


@dataclass(frozen=True, slots=True)
class Example:
    """One record for the model. For text, `labels` is as long as `input_ids`. For classification it
    is empty, and `label` is the row of the head."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    label: int | None = None


def encode(content: str, tokenizer: Tokenizer, task: Task) -> Example:
    """The example that a record's content becomes, cut from the end to `task.max_tokens`.

    The end-of-sequence token is the last label, unless it was cut. Raises DataError when nothing of
    the record would be learned, ConfigError when the tokenizer lacks what the task needs.
    """
    record = json.loads(content)
    if task.kind == "classification":
        return _classified(record, tokenizer, task)
    learn_all = task.train_on_prompt == "always"
    input_ids: list[int] = []
    labels: list[int] = []
    for part in _parts(record, tokenizer, task):
        input_ids += part.ids
        labels += part.ids if part.learned or learn_all else [NO_LOSS] * len(part.ids)
    kept = labels[: task.max_tokens]
    if all(label == NO_LOSS for label in kept[1:]):
        raise TeachesNothing(
            f"a record of {len(input_ids)} tokens teaches nothing: its first {len(kept)} tokens hold no response",
            f"raise task.max_tokens (now {task.max_tokens}), or remove the record",
        )
    return Example(tuple(input_ids[: task.max_tokens]), tuple(kept))


def prompt_ids(prompt: str, tokenizer: Tokenizer, task: Task) -> list[int]:
    """Ids to generate a response from: `prompt` in the place of an instruction, as in training."""
    if task.prompt == "chat_template":
        return conversation_prompt([{"role": "user", "content": prompt}], tokenizer, task)
    return [*begin_ids(tokenizer), *_plain_ids(_instruction(prompt, "", task), tokenizer)]


def messages_prompt_ids(messages: Sequence[Message], tokenizer: Tokenizer, task: Task) -> list[int]:
    """Ids to generate the assistant's next message from. Raises DataError: this prompt has no turns."""
    if task.prompt == "chat_template":
        return conversation_prompt(messages, tokenizer, task)
    if len(messages) != 1 or messages[0]["role"] != "user":
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"messages of {roles or 'nobody'}: a model trained with task.prompt {task.prompt} answers one user message",
            "send one message of the role user, or train with task.prompt: chat_template",
        )
    return prompt_ids(messages[0]["content"], tokenizer, task)


def _parts(record: Mapping[str, Any], tokenizer: Tokenizer, task: Task) -> list[Part]:
    in_one_pass = record.get("encoding") == ENCODING
    ids = _plain_ids if in_one_pass else text_ids
    if "messages" in record:
        return _turns(record, tokenizer, task)
    if "text" in record:
        return [
            Part(begin_ids(tokenizer), False),
            Part([*ids(record["text"], tokenizer), end_id(tokenizer)], True),
        ]
    instruction, given, output = record["instruction"], record["input"], record["output"]
    if task.prompt == "chat_template":
        asked = f"{instruction}\n\n{given}" if given else instruction
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": output}]
        return _turns({**record, "messages": turns}, tokenizer, task)
    return [
        Part([*begin_ids(tokenizer), *ids(_instruction(instruction, given, task), tokenizer)], False),
        Part([*ids(output, tokenizer), end_id(tokenizer)], True),
    ]


def _turns(record: Mapping[str, Any], tokenizer: Tokenizer, task: Task) -> list[Part]:
    if record.get("encoding") == ENCODING:
        return conversation_parts(record, tokenizer, task)
    return chat_parts(record["messages"], tokenizer, chat_template(tokenizer, task))


def _plain_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of text that somebody wrote, none of them a control token's."""
    return control_tokens(tokenizer).encode(text).ids


def _instruction(instruction: str, given: str, task: Task) -> str:
    if task.prompt == "plain":
        return f"{instruction}\n{given}" if given else instruction
    # An empty input gets no section of its own: it would teach the model to expect one.
    template = _WITH_INPUT if given else _WITHOUT_INPUT
    return template.format(instruction=instruction, input=given)


def _classified(record: Mapping[str, Any], tokenizer: Tokenizer, task: Task) -> Example:
    # Here the tokenizer's own special tokens belong: an encoder pools at one of them.
    ids = tokenizer(
        record["text"],
        add_special_tokens=True,
        split_special_tokens=True,
        truncation=True,
        max_length=task.max_tokens,
    )["input_ids"]
    return Example(tuple(ids), (), task.labels.index(record["label"]))
