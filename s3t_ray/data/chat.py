"""Chat messages into token ids, with the assistant's turns told apart from everything else.

In: messages and a tokenizer with a chat template. Out: parts of one sequence, each learned or not.
The template is rendered turn by turn, and each turn must begin with the text of the turns before it:
so the boundaries are found whatever the template, and one that rewrites earlier turns is refused.
Must never look for a template's markers in the text: a user can write them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3t_ray.data.token_ids import Tokenizer, end_id, template_ids
from s3t_ray.errors import ConfigError, DataError

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring tokens that are all learned, or all not."""

    ids: list[int]
    learned: bool


def chat_parts(messages: Sequence[Message], tokenizer: Tokenizer) -> list[Part]:
    """The sequence that `messages` become, for training: the assistant's turns are learned.

    A turn ends with the end-of-sequence token where the template puts it; the last turn always.
    Raises ConfigError (no template) and DataError (the template refuses or rewrites turns).
    """
    end = end_id(tokenizer)
    parts: list[Part] = []
    for text, learned in _segments(messages, tokenizer, _render(messages, tokenizer, prompt=False)):
        ids = template_ids(text, tokenizer)
        if not learned:
            parts.append(Part(ids, False))
            continue
        # What a template writes behind the end of a turn is never generated, so never learned.
        stop = ids.index(end) + 1 if end in ids else len(ids)
        parts += [Part(ids[:stop], True), Part(ids[stop:], False)]
    if messages[-1]["role"] == "assistant" and end not in next(part.ids for part in reversed(parts) if part.learned):
        parts.append(Part([end], True))
    return [part for part in parts if part.ids]


def chat_prompt(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """Ids of `messages` and of the opening of the assistant's next turn, as in training."""
    text = _render(messages, tokenizer, prompt=True)
    return [token for segment, _ in _segments(messages, tokenizer, text) for token in template_ids(segment, tokenizer)]


def _segments(messages: Sequence[Message], tokenizer: Tokenizer, whole: str) -> list[tuple[str, bool]]:
    """`whole` (the rendered messages) cut where assistant turns begin and end."""
    segments: list[tuple[str, bool]] = []
    done = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _render(messages[:index], tokenizer, prompt=True)
        after = _render(messages[: index + 1], tokenizer, prompt=False)
        if not (whole.startswith(after) and after.startswith(before) and len(before) >= done):
            raise DataError(
                f"message {index + 1}: the tokenizer's chat template rewrites earlier turns, so what the assistant "
                "said cannot be told apart",
                "use records of one turn, a template that only appends, or another task.prompt",
            )
        segments += [(whole[done : len(before)], False), (whole[len(before) : len(after)], True)]
        done = len(after)
    segments.append((whole[done:], False))
    return [(text, learned) for text, learned in segments if text]


def _render(messages: Sequence[Message], tokenizer: Tokenizer, *, prompt: bool) -> str:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise ConfigError(
            "task.prompt = chat_template: the tokenizer of the base model has no chat template",
            "use task.prompt: alpaca or plain, or a base model with a template",
        )
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"the tokenizer's chat template refuses messages of {roles}: {error}", "change the order of the turns"
        ) from error
