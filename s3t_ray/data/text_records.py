"""The task causal_lm: instructions, chats and plain texts, of which the response is learned token by token.

Content is one of
    {"instruction", "input", "output"}
    {"messages": [{"role", "content"}, ...]}     prompt: chat_template
    {"text"}
Training and generation share the templates below, so a prompt gets the same ids in both. Must never leave the start of
a response to the tokenizer: prompt and response are tokenised apart, and their ids put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3t_ray.data.chat import Message, Part, chat_parts, chat_prompt
from s3t_ray.data.row_fields import MalformedRow, text_field, type_name
from s3t_ray.data.task_records import NO_LOSS, Example, TaskRecords, TeachesNothing
from s3t_ray.data.token_ids import Tokenizer, begin_ids, end_id, text_ids
from s3t_ray.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
"""Who may speak in a chat message."""

_ONLY_CONTENT = ("instruction", "output", "messages", "text")
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


class TextRecords(TaskRecords):
    """Records whose response a decoder learns to write."""

    def content(self, row: Mapping[str, object]) -> dict[str, object]:
        # Published sets carry the same record in two forms (Alpaca: also as ready text), so the prompt decides.
        if self.task.prompt == "chat_template" and row.get("messages") is not None:
            return {"messages": _messages(row["messages"])}
        if row.get("instruction") is not None:
            instruction, output = text_field(row, "instruction"), text_field(row, "output")
            return {"instruction": instruction, "input": text_field(row, "input", default=""), "output": output}
        if row.get("text") is not None:
            return {"text": text_field(row, "text")}
        if row.get("messages") is not None:
            raise MalformedRow("messages need task.prompt: chat_template")
        found = [name for name in _ONLY_CONTENT if name in row]
        raise MalformedRow(
            "there is neither instruction and output, nor messages, nor text"
            + (f" (null: {', '.join(found)})" if found else "")
        )

    def encode(self, content: Mapping[str, Any], tokenizer: Tokenizer) -> Example:
        """The end-of-sequence token is the last label, unless it was cut."""
        learn_all = self.task.train_on_prompt == "always"
        input_ids: list[int] = []
        labels: list[int] = []
        for part in self._parts(content, tokenizer):
            input_ids += part.ids
            labels += part.ids if part.learned or learn_all else [NO_LOSS] * len(part.ids)
        kept = labels[: self.task.max_tokens]
        if all(label == NO_LOSS for label in kept[1:]):
            raise TeachesNothing(
                f"a record of {len(input_ids)} tokens teaches nothing: its first {len(kept)} tokens hold no response",
                f"raise task.max_tokens (now {self.task.max_tokens}), or remove the record",
            )
        return Example(tuple(input_ids[: self.task.max_tokens]), tuple(kept))

    def prompt(self, prompt: str | Sequence[Message], tokenizer: Tokenizer) -> Example:
        """`prompt` in the place of an instruction, or the messages of a chat before the assistant's next."""
        return Example(tuple(self._prompt_ids(prompt, tokenizer)), ())

    def _prompt_ids(self, prompt: str | Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if self.task.prompt == "chat_template":
            return chat_prompt(messages, tokenizer)
        if len(messages) != 1 or messages[0]["role"] != "user":
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(
                f"messages of {roles or 'nobody'}: a model trained with task.prompt {self.task.prompt} answers one "
                "user message",
                "send one message of the role user, or train with task.prompt: chat_template",
            )
        return [*begin_ids(tokenizer), *text_ids(self._instruction(messages[0]["content"], ""), tokenizer)]

    def _parts(self, record: Mapping[str, Any], tokenizer: Tokenizer) -> list[Part]:
        if "messages" in record:
            return chat_parts(record["messages"], tokenizer)
        if "text" in record:
            return [
                Part(begin_ids(tokenizer), False),
                Part([*text_ids(record["text"], tokenizer), end_id(tokenizer)], True),
            ]
        instruction, given, output = record["instruction"], record["input"], record["output"]
        if self.task.prompt == "chat_template":
            asked = f"{instruction}\n\n{given}" if given else instruction
            return chat_parts([{"role": "user", "content": asked}, {"role": "assistant", "content": output}], tokenizer)
        return [
            Part([*begin_ids(tokenizer), *text_ids(self._instruction(instruction, given), tokenizer)], False),
            Part([*text_ids(output, tokenizer), end_id(tokenizer)], True),
        ]

    def _instruction(self, instruction: str, given: str) -> str:
        if self.task.prompt == "plain":
            return f"{instruction}\n{given}" if given else instruction
        # An empty input gets no section of its own: it would teach the model to expect one.
        template = _WITH_INPUT if given else _WITHOUT_INPUT
        return template.format(instruction=instruction, input=given)


def _messages(value: object) -> list[dict[str, str]]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
        raise MalformedRow(f"messages is {type_name(value)}, not a list of messages")
    messages: list[dict[str, str]] = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            raise MalformedRow(f"message {number} is {type_name(message)}, not an object with role and content")
        try:
            role, content = text_field(message, "role"), text_field(message, "content")
        except MalformedRow as error:
            raise MalformedRow(f"message {number}: {error}") from error
        if role not in ROLES:
            raise MalformedRow(f"message {number}: role is none of {', '.join(ROLES)}")
        messages.append({"role": role, "content": content})
    if messages[0]["role"] == "assistant":
        raise MalformedRow("message 1 has the role assistant, with nothing to answer")
    if not any(message["role"] == "assistant" for message in messages):
        raise MalformedRow("no message has the role assistant, so there is nothing to learn")
    return messages
