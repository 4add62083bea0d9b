"""Converts chat messages to token ids, turn by turn, and separates the assistant's turns from the rest.

In: messages and a tokenizer with a chat template. Out: parts of one sequence, each with or without a loss. The
template is rendered turn by turn, and each result must start with the text of the previous turns. This finds the
boundaries with any template, and refuses templates that rewrite earlier turns. Never searches the text for a
template's markers, because a user can write them too.

`chat_parts` encodes each piece separately. Records without an `encoding` field were trained this way. It gives the
same ids as `conversation.py` for text without control tokens, with tokenizers that add nothing to a piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3t_ray.data.chats.token_ids import Tokenizer, end_id, template_ids
from s3t_ray.errors import DataError

_TEMPLATE_FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""The exceptions that a template's expressions raise."""

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive tokens that either all have a loss (`learned`) or all have none."""

    ids: list[int]
    learned: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the rendered text: one of the assistant's turns, or the text between two of them."""

    text: str
    message: int | None  # index of the assistant's message; None: text between such messages


def chat_parts(messages: Sequence[Message], tokenizer: Tokenizer, template: str) -> list[Part]:
    """Convert `messages` to a training sequence in which the assistant's turns have a loss.

    A turn ends with the end-of-sequence token if the template adds one; the last turn always does. Raises DataError if
    the template refuses or rewrites turns, ConfigError if the tokenizer has no end-of-sequence token.
    """
    end = end_id(tokenizer)
    parts: list[Part] = []
    whole = rendered(messages, tokenizer, template, tools=None, prompt=False)
    for piece in segments(messages, tokenizer, template, whole, None):
        ids = template_ids(piece.text, tokenizer)
        if piece.message is None:
            parts.append(Part(ids, False))
            continue
        # Text that a template adds after the end of a turn is never generated, so it has no loss.
        stop = ids.index(end) + 1 if end in ids else len(ids)
        parts += [Part(ids[:stop], True), Part(ids[stop:], False)]
    if messages[-1]["role"] == "assistant" and end not in next(part.ids for part in reversed(parts) if part.learned):
        parts.append(Part([end], True))
    return [part for part in parts if part.ids]


def segments(
    messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, template: str, whole: str, tools: Any
) -> list[Segment]:
    """Split `whole` (the rendered messages) at the start and end of each assistant turn. Raises DataError."""
    pieces: list[Segment] = []
    done = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = rendered(messages[:index], tokenizer, template, tools=tools, prompt=True)
        after = rendered(messages[: index + 1], tokenizer, template, tools=tools, prompt=False)
        if not (whole.startswith(after) and after.startswith(before) and len(before) >= done):
            raise DataError(
                f"message {index + 1}: the tokenizer's chat template rewrites earlier turns, so the assistant's turns "
                "cannot be separated",
                "use single-turn records, a template that only appends, or another task.prompt",
            )
        pieces += [Segment(whole[done : len(before)], None), Segment(whole[len(before) : len(after)], index)]
        done = len(after)
    pieces.append(Segment(whole[done:], None))
    return [piece for piece in pieces if piece.text]


def rendered(
    messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, template: str, *, tools: Any, prompt: bool
) -> str:
    """Render messages with `template`; with `prompt`, append the start of the assistant's next turn.

    Raises DataError if the template refuses the messages.
    """
    from jinja2 import TemplateError

    more = {} if tools is None else {"tools": tools}
    told = [{name: value for name, value in message.items() if name != "weight"} for message in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                told, chat_template=template, tokenize=False, add_generation_prompt=prompt, **more
            )
        )
    except (TemplateError, *_TEMPLATE_FAULTS) as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise DataError(
            f"the tokenizer's chat template refuses messages of {roles or 'nobody'}: {error}",
            "change the order of the turns, or remove what the template does not accept",
        ) from error
