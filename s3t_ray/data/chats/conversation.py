"""A conversation into token ids, in one pass over what the chat template renders, and what of it is learned.

In: messages (with tools, tool calls, reasoning, weights) and a tokenizer. Out: parts of one sequence. The ids are
those of `apply_chat_template` with tokenisation, whatever the tokenizer (byte-level BPE, SentencePiece, Metaspace), so
a served adapter sees what it was trained on; text in messages can never become a control token; and each message's
text stands in what is rendered, or the record is refused. A record asks for this by its `encoding` (`inputs.py`).
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
    """The sequence that a record of `messages` becomes. The assistant's messages are learned, but those of weight 0.

    Raises ConfigError (no template) and DataError (the template refuses, rewrites or drops what was said).
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
        # What a template writes behind the end of a turn is never generated, so never learned.
        stop = ids.index(end) + 1 if end in ids else len(ids)
        parts += [Part(ids[:stop], True), Part(ids[stop:], False)]
    learned = [part for part in parts if part.learned]
    if messages[-1]["role"] == "assistant" and messages[-1].get("weight") != 0 and end not in learned[-1].ids:
        parts.append(Part([end], True))
    return [part for part in parts if part.ids]


def conversation_prompt(messages: Sequence[Mapping[str, Any]], tokenizer: Any, task: Task) -> list[int]:
    """Ids of `messages` and of the opening of the assistant's next turn, as `apply_chat_template` makes them."""
    control = control_tokens(tokenizer)
    hidden = [control.hidden(message) for message in messages]
    text = rendered(hidden, tokenizer, chat_template(tokenizer, task), tools=None, prompt=True)
    return control.encode(control.rendered(text)).ids


def _check_nothing_dropped(messages: Sequence[Mapping[str, Any]], tools: Any, cut: Sequence[Any], whole: str) -> None:
    """Raise DataError when the template left out something that was said."""
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
    """Whether `said` stands in `text`, as it is or as JSON spells it."""
    return said in text or any(json.dumps(said, ensure_ascii=ascii_only)[1:-1] in text for ascii_only in (False, True))


def _names(tools: Any) -> Iterator[str]:
    for tool in tools or ():
        yield str(tool.get("function", tool).get("name", ""))
