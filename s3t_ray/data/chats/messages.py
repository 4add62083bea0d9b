"""Converts conversations in the common formats to messages with a role, content, and all that affects their meaning.

In: a list of messages (`role`/`content`, or ShareGPT's `from`/`value`). Out: messages as chat templates expect them.
Unsupported content (images, legacy function calls) is refused, never dropped. Errors name fields and types, never a
value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from s3t_ray.data.readers.json_array import decoder
from s3t_ray.data.row_fields import MalformedRow, encodable, text_field, type_name

ROLES = ("system", "user", "assistant", "tool")
"""The roles of messages."""
_KNOWN_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "developer": "system",
    "observation": "tool",
    "function": "tool",
    "ipython": "tool",
}
_REFUSED = ("function_call", "audio", "images", "refusal")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_WEIGHTS = ("weight", "train", "loss")
_JSON = decoder()
_DEEPEST = 100
"""Maximum nesting depth of tools and tool calls. Fixed, so that it does not depend on the stack size."""


def messages_of(value: object) -> list[dict[str, Any]]:
    """The messages in `value`. Raises MalformedRow."""
    value = _list(value, "messages")
    messages: list[dict[str, Any]] = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            raise MalformedRow(f"message {number} is {type_name(message)}, not an object with role and content")
        try:
            made = _message(message)
        except MalformedRow as error:
            raise MalformedRow(f"message {number}: {error}", error.fix) from error
        if made is not None:
            messages.append(made)
    if not messages:
        raise MalformedRow("messages is empty")
    if messages[0]["role"] == "assistant":
        raise MalformedRow("message 1 has the role assistant, with no question before it")
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise MalformedRow("no message has the role assistant, so there is nothing to learn")
    if all(message.get("weight") == 0 for message in answers):
        raise MalformedRow("every message of the assistant has weight 0, so there is nothing to learn")
    return messages


def tools_of(value: object) -> list[Any] | None:
    """The tools in a row, as JSON schemas; None if there are none. Raises MalformedRow."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = _JSON.decode(value)
        except (ValueError, RecursionError) as error:
            raise MalformedRow("field 'tools' is text, but not JSON") from error
    if value is None:
        return None
    tools = _list(value, "tools")
    if not all(isinstance(tool, Mapping) for tool in tools):
        raise MalformedRow("field 'tools' is not a list of objects")
    return [_plain(tool, "tools") for tool in tools] or None


def with_system(messages: list[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
    """`messages` with a system message from a separate column first. Raises MalformedRow if there are two."""
    if system is None:
        return messages
    if messages[0]["role"] == "system":
        raise MalformedRow("there is both a system message and a field 'system'")
    return [{"role": "system", "content": system}, *messages]


def history_of(value: object) -> list[dict[str, Any]]:
    """Earlier turns as messages, from pairs of (question, answer). Raises MalformedRow."""
    turns: list[dict[str, Any]] = []
    for pair in _list(value, "history"):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise MalformedRow("field 'history' is not a list of pairs (question, answer)")
        asked, answered = (text_field({"history": text}, "history") for text in pair)
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return turns


def _message(message: Mapping[str, object]) -> dict[str, Any] | None:
    """One message; None for a system message without text."""
    role_key = "role" if "role" in message or "from" not in message else "from"
    content_key = "content" if "content" in message or "value" not in message else "value"
    role = _role(text_field(message, role_key))
    for name in _REFUSED:
        if message.get(name):
            raise MalformedRow(f"field {name!r} cannot be trained on", f"remove the rows with {name}")
    calls = _calls(message.get("tool_calls")) if role == "assistant" else None
    content = _content(message, content_key, may_be_empty=role == "system" or bool(calls))
    if role == "system" and not content.strip():
        return None
    made: dict[str, Any] = {"role": role, "content": content}
    if calls:
        made["tool_calls"] = calls
    for name in ("name", "tool_call_id"):
        if role == "tool" and message.get(name):
            made[name] = text_field(message, name)
    reasoning = next((name for name in _REASONING if message.get(name)), None)
    if reasoning is not None:
        made["reasoning_content"] = text_field(message, reasoning)
    if role == "assistant" and _weight(message) == 0:
        made["weight"] = 0
    return made


def _role(told: str) -> str:
    name = told.strip().lower()
    role = name if name in ROLES else _KNOWN_ROLES.get(name, "")
    if not role:
        raise MalformedRow(
            f"role is not one of {', '.join(ROLES)}", "map the data's role names in data.roles (docs/data.md)"
        )
    return role


def _content(message: Mapping[str, object], key: str, may_be_empty: bool) -> str:
    value = message.get(key)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        value = "".join(_part(part) for part in value)
    if may_be_empty and (value is None or (isinstance(value, str) and not value.strip())):
        return ""
    return text_field({key: value} if key in message else {}, key)


def _part(part: object) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise MalformedRow("content has a part that is not text", "remove the rows with images, audio or files")
    return encodable(str(part["text"]), "content")


def _calls(value: object) -> list[Any] | None:
    if value is None:
        return None
    calls = []
    for call in _list(value, "tool_calls"):
        if not isinstance(call, Mapping):
            raise MalformedRow("field 'tool_calls' is not a list of objects")
        made = _plain(call, "tool_calls")
        function = made.get("function", made)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise MalformedRow("field 'tool_calls' has a call without a function's name")
        if function.get("arguments") is not None:
            function["arguments"] = _arguments(function["arguments"])
        calls.append(made)
    return calls or None


def _arguments(told: object) -> dict[str, Any]:
    """The arguments of a call, given as an object or as JSON text (OpenAI's format). Templates expect the object."""
    if isinstance(told, str):
        try:
            decoded = _JSON.decode(told) if told.strip() else {}
        except (ValueError, RecursionError) as error:
            raise MalformedRow("field 'tool_calls' has arguments that are not JSON") from error
        told = _plain(decoded, "tool_calls")
    if not isinstance(told, dict):
        raise MalformedRow(
            f"field 'tool_calls' has arguments that are {type_name(told)}, not an object",
            "write a call's arguments as an object with their names",
        )
    return told


def _weight(message: Mapping[str, object]) -> int:
    for name in _WEIGHTS:
        value = message.get(name)
        if value is None:
            continue
        if value not in (0, 1):
            raise MalformedRow(f"field {name!r} is neither 0 nor 1")
        return int(bool(value))
    return 1


def _list(value: object, name: str) -> Sequence[Any]:
    if isinstance(value, str) and value.lstrip()[:1] == "[":  # a column of JSON text
        try:
            value = _JSON.decode(value)
        except (ValueError, RecursionError) as error:
            raise MalformedRow(f"{name} is text, but not JSON") from error
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise MalformedRow(f"{name} is {type_name(value)}, not a list")
    return value


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """`value` converted to plain JSON types. Raises MalformedRow."""
    if depth > _DEEPEST:
        raise MalformedRow(f"field {name!r} is nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        return encodable(value, name)
    if value is None or type(value) in (bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {encodable(str(key), name): _plain(item, name, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, name, depth + 1) for item in value]
    kind = "a number that is not finite" if type(value) is float else type_name(value)
    raise MalformedRow(f"field {name!r} holds {kind}, which JSON does not support")
