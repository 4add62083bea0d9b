"""Converts a conversation to token ids, in one pass over the rendered chat template, and marks the learned tokens.

In: messages (with tools, tool calls, reasoning, weights) and a tokenizer. Out: parts of one sequence. The ids equal
those of `apply_chat_template` with any tokenizer (byte-level BPE, SentencePiece, Metaspace), so serving sees the same
input as training. Text in messages can never become a control token. If the template drops the text of a message, the
record is refused. A record requests this encoding with its `encoding` field (`text_records.py`).
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3t_ray.config.schema import Task
from s3t_ray.data.chats.chat import Part, rendered, segments
from s3t_ray.data.chats.chat_template import chat_template
from s3t_ray.data.chats.control_tokens import control_tokens
from s3t_ray.data.chats.token_ids import end_id
from s3t_ray.errors import DataError


def conversation_parts(record: Mapping[str, Any], tokenizer: Any, task: Task) -> list[Part]:
    """Convert a record with `messages` to a sequence. The assistant's messages have a loss, except those of weight 0.

    Raises ConfigError if there is no usable template, DataError if the template refuses, rewrites or drops messages.
    """
    control, end = control_tokens(tokenizer), end_id(tokenizer)
    messages, tools = control.hidden(record["messages"]), control.hidden(record.get("tools"))
    template = chat_template(tokenizer, task)
    whole = rendered(messages, tokenizer, template, tools=tools, prompt=False)
    cut = segments(messages, tokenizer, template, whole, tools)
    _check_nothing_dropped(messages, tools, cut, whole)
    texts = [control.rendered(piece.text) for piece in cut]
    encoded = control.encode("".join(texts))
    firsts, position = [], 0
    for text in texts:
        firsts.append(position)
        position += len(text)
    parts: list[Part] = []
    spread: list[list[int]] = [[] for _ in cut]
    for token, start in zip(encoded.ids, encoded.starts, strict=True):
        spread[max(0, bisect_right(firsts, start) - 1)].append(token)
    for piece, ids in zip(cut, spread, strict=True):
        if piece.message is None or messages[piece.message].get("weight") == 0:
            parts.append(Part(ids, False))
            continue
        # Text that a template adds after the end of a turn is never generated, so it has no loss.
        stop = ids.index(end) + 1 if end in ids else len(ids)
        parts += [Part(ids[:stop], True), Part(ids[stop:], False)]
    learned = [part for part in parts if part.learned]
    if messages[-1]["role"] == "assistant" and messages[-1].get("weight") != 0 and end not in learned[-1].ids:
        parts.append(Part([end], True))
    return [part for part in parts if part.ids]


def conversation_prompt(messages: Sequence[Mapping[str, Any]], tokenizer: Any, task: Task) -> list[int]:
    """The ids of `messages` and of the start of the assistant's next turn, as from `apply_chat_template`."""
    control = control_tokens(tokenizer)
    hidden = [control.hidden(message) for message in messages]
    text = rendered(hidden, tokenizer, chat_template(tokenizer, task), tools=None, prompt=True)
    return control.encode(control.rendered(text)).ids


def _check_nothing_dropped(messages: Sequence[Mapping[str, Any]], tools: Any, cut: Sequence[Any], whole: str) -> None:
    """Raise DataError if the template dropped a part of a message or a tool."""
    own = {piece.message: piece.text for piece in cut if piece.message is not None}
    for index, message in enumerate(messages):
        text = own.get(index, whole)
        for what, said in _said(message):
            if said.strip() and not _stands(said.strip(), text):
                raise DataError(
                    f"message {index + 1}: the chat template leaves out its {what}",
                    "remove that field from the record, or use a base model whose chat template renders it",
                )
    for name in _names(tools):
        if not _stands(name, whole):
            raise DataError(
                f"the chat template leaves out the tool {name!r}",
                "remove tools from the record, or use a base model whose chat template renders them",
            )


def _said(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "content", message["content"]
    if message.get("reasoning_content"):
        yield "reasoning_content", message["reasoning_content"]
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        yield "tool_calls", str(function.get("name", ""))
        for value in _leaves(function.get("arguments")):
            yield "tool_calls", value


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield json.dumps(value)


def _stands(said: str, text: str) -> bool:
    """Whether `text` contains `said`, either unchanged or as escaped by JSON."""
    return said in text or any(json.dumps(said, ensure_ascii=ascii_only)[1:-1] in text for ascii_only in (False, True))


def _names(tools: Any) -> Iterator[str]:
    for tool in tools or ():
        yield str(tool.get("function", tool).get("name", ""))
