"""The task `causal_lm`: instructions, chats and plain texts, with a loss on the tokens of the response.

The content is one of
    {"instruction", "input", "output"}
    {"messages": [{"role", "content", ...}, ...]}     prompt: chat_template; with tool_calls, name, reasoning_content,
                                                      weight: 0 and tools, if present
    {"text"}
It has an `encoding` field if the first encoding would give different ids (`record_check.py`), so that runs of earlier
versions stay reproducible.
Training and generation share the templates below, so a prompt gets the same ids in both. Prompt and response are
tokenized separately and then concatenated, so that the tokenizer cannot merge the start of a response with the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3t_ray.data.chats.chat import Message, Part, chat_parts
from s3t_ray.data.chats.chat_template import chat_template
from s3t_ray.data.chats.control_tokens import control_tokens
from s3t_ray.data.chats.conversation import conversation_parts, conversation_prompt
from s3t_ray.data.chats.messages import history_of, messages_of, tools_of, with_system
from s3t_ray.data.chats.token_ids import Tokenizer, begin_ids, end_id, text_ids
from s3t_ray.data.readers.columns import MEDIA
from s3t_ray.data.row_fields import MalformedRow, text_field
from s3t_ray.data.task_records import NO_LOSS, Example, TaskRecords, TeachesNothing
from s3t_ray.errors import DataError

ENCODING = 2
"""The value of a record's `encoding` field. Names of control tokens in its text are text, and a conversation is encoded
in one pass. A record without this field is encoded as in the first version."""

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
    """Records whose response a decoder learns to generate."""

    def content(self, row: Mapping[str, object]) -> dict[str, object]:
        _refuse_media(row)
        # Published data sets contain the same record in two forms (Alpaca also as text), so the prompt setting decides.
        if self.task.prompt == "chat_template" and row.get("messages") is not None:
            return _conversation(messages_of(row["messages"]), row)
        if row.get("instruction") is not None:
            return self._instructed(row)
        if row.get("text") is not None:
            return {"text": text_field(row, "text")}
        if row.get("messages") is not None:
            raise MalformedRow("messages need task.prompt: chat_template", "set task.prompt: chat_template")
        found = [name for name in _ONLY_CONTENT if name in row]
        raise MalformedRow(
            "there are no instruction and output, no messages and no text"
            + (f" (null: {', '.join(found)})" if found else f" (its columns: {', '.join(map(str, [*row][:12]))})"),
            "set data.columns, such as columns: {instruction: question, output: answer} (docs/data.md)",
        )

    def _instructed(self, row: Mapping[str, object]) -> dict[str, object]:
        instruction, output = text_field(row, "instruction"), text_field(row, "output")
        given = text_field(row, "input", default="")
        earlier = history_of(row["history"]) if row.get("history") else []
        system, tools = text_field(row, "system", default=""), tools_of(row.get("tools"))
        if not (earlier or system or tools):
            return {"instruction": instruction, "input": given, "output": output}
        if self.task.prompt != "chat_template":
            extra = "history" if earlier else "system" if system else "tools"
            raise MalformedRow(f"field {extra!r} needs task.prompt: chat_template", "set task.prompt: chat_template")
        asked = f"{instruction}\n\n{given}" if given else instruction
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": output}]
        return _conversation([*earlier, *turns], row)

    def encode(self, content: Mapping[str, Any], tokenizer: Tokenizer) -> Example:
        """Encode a record. The end-of-sequence token is the last label, unless it was truncated."""
        learn_all = self.task.train_on_prompt == "always"
        input_ids: list[int] = []
        labels: list[int] = []
        for part in self._parts(content, tokenizer):
            input_ids += part.ids
            labels += part.ids if part.learned or learn_all else [NO_LOSS] * len(part.ids)
        kept = labels[: self.task.max_tokens]
        if all(label == NO_LOSS for label in kept[1:]):
            raise TeachesNothing(
                f"a record of {len(input_ids)} tokens teaches nothing: its first {len(kept)} tokens contain no "
                "response",
                f"raise task.max_tokens (now {self.task.max_tokens}), or remove the record",
            )
        return Example(tuple(input_ids[: self.task.max_tokens]), tuple(kept))

    def prompt(self, prompt: str | Sequence[Message], tokenizer: Tokenizer) -> Example:
        """Encode `prompt`: an instruction, or the chat messages before the assistant's next turn."""
        return Example(tuple(self._prompt_ids(prompt, tokenizer)), ())

    def _prompt_ids(self, prompt: str | Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if self.task.prompt == "chat_template":
            return conversation_prompt(messages, tokenizer, self.task)
        if len(messages) != 1 or messages[0]["role"] != "user":
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(
                f"messages of {roles or 'nobody'}: a model trained with task.prompt {self.task.prompt} answers one "
                "user message",
                "send one message of the role user, or train with task.prompt: chat_template",
            )
        return [*begin_ids(tokenizer), *plain_ids(self._instruction(messages[0]["content"], ""), tokenizer)]

    def _parts(self, record: Mapping[str, Any], tokenizer: Tokenizer) -> list[Part]:
        ids = plain_ids if record.get("encoding") == ENCODING else text_ids
        if "messages" in record:
            return self._turns(record, tokenizer)
        if "text" in record:
            return [
                Part(begin_ids(tokenizer), False),
                Part([*ids(record["text"], tokenizer), end_id(tokenizer)], True),
            ]
        instruction, given, output = record["instruction"], record["input"], record["output"]
        if self.task.prompt == "chat_template":
            asked = f"{instruction}\n\n{given}" if given else instruction
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": output}]
            return self._turns({**record, "messages": turns}, tokenizer)
        return [
            Part([*begin_ids(tokenizer), *ids(self._instruction(instruction, given), tokenizer)], False),
            Part([*ids(output, tokenizer), end_id(tokenizer)], True),
        ]

    def _turns(self, record: Mapping[str, Any], tokenizer: Tokenizer) -> list[Part]:
        if record.get("encoding") == ENCODING:
            return conversation_parts(record, tokenizer, self.task)
        return chat_parts(record["messages"], tokenizer, chat_template(tokenizer, self.task))

    def _instruction(self, instruction: str, given: str) -> str:
        if self.task.prompt == "plain":
            return f"{instruction}\n{given}" if given else instruction
        # Leave out the section for an empty input; otherwise the model would learn to expect one.
        template = _WITH_INPUT if given else _WITHOUT_INPUT
        return template.format(instruction=instruction, input=given)


def plain_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """The token ids of ordinary text, without control tokens."""
    return control_tokens(tokenizer).encode(text).ids


def _conversation(messages: list[dict[str, Any]], row: Mapping[str, object]) -> dict[str, object]:
    system, tools = text_field(row, "system", default=""), tools_of(row.get("tools"))
    content: dict[str, object] = {"messages": with_system(messages, system or None)}
    return content if tools is None else {**content, "tools": tools}


def _refuse_media(row: Mapping[str, object]) -> None:
    for name in MEDIA:
        if row.get(name):
            raise MalformedRow(
                f"field {name!r} is not empty, and only text can be trained on", "remove the rows with images or audio"
            )
