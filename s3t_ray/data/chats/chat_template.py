"""The chat template of a base model, made independent of the day: what it renders follows from messages alone.

In: a tokenizer and the task. Out: the template to render with. Templates of Llama 3.2 and others ask for today's date
(`strftime_now`); the config pins it (`task.date`), so that a stage trained tomorrow is the same. Must never read
the clock, but to suggest a date, and never depends on the machine's locale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from s3t_ray.config.schema import Task
from s3t_ray.errors import ConfigError

_CALL = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>[^'"\\]*)(?P=quote)\s*\)""")
_CLOCK = re.compile(r"\bstrftime_now\b(?!\s+is\s+(not\s+)?(defined|undefined)\b)")
_RANDOM = re.compile(r"\|\s*random\b|\blipsum\s*\(")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def chat_template(tokenizer: Any, task: Task) -> str:
    """The tokenizer's chat template with `task.date` in the place of the clock.

    Raises ConfigError: there is none; it asks for the date and none is pinned; it draws at random.
    """
    template = tokenizer.chat_template
    if isinstance(template, Mapping):  # several by name; that for tools must not come into force by itself
        template = template.get("default")
    if not template:
        raise ConfigError(
            "task.prompt = chat_template: the tokenizer of the base model has no chat template",
            "restore its chat_template.jinja, use a base model with a template, or set task.prompt: alpaca or plain",
        )
    if _RANDOM.search(template):
        raise ConfigError(
            "the chat template of the base model is random, so no stage could be trained twice with the same result",
            "use task.prompt: alpaca or plain, or put another chat_template.jinja into a copy of the base model",
        )
    if not _CLOCK.search(template):
        return str(template)
    if task.date is None:
        raise ConfigError(
            "the chat template of the base model asks for today's date (strftime_now), so that a stage would depend on "
            "the day it is trained",
            f"set the date for all stages: task.date: {date.today().isoformat()}",
        )
    day = task.date
    pinned = _CALL.sub(lambda call: _literal(formatted(day, call["format"])), str(template))
    if _CLOCK.search(pinned):
        raise ConfigError(
            "the chat template of the base model computes its date format, so the date cannot be fixed",
            "put a chat_template.jinja with a fixed format, such as strftime_now('%d %B %Y'), into a copy of the base",
        )
    return pinned


def formatted(day: date, pattern: str) -> str:
    """`day`, at midnight, by strftime's `pattern`, in English whatever the locale."""
    names = {
        "a": _DAYS[day.weekday()][:3],
        "A": _DAYS[day.weekday()],
        "b": _MONTHS[day.month - 1][:3],
        "B": _MONTHS[day.month - 1],
        "h": _MONTHS[day.month - 1][:3],
        "p": "AM",
        "c": "%a %b %e 00:00:00 %Y",
        "x": "%m/%d/%y",
        "X": "00:00:00",
        "r": "12:00:00 AM",
        "Z": "UTC",
        "z": "+0000",
        "s": "0",
    }

    def one(match: re.Match[str]) -> str:
        letter = match.group(1)
        if letter == "%":
            return "%"
        told = names.get(letter)
        if told is None:
            return day.strftime(f"%{letter}")
        return formatted(day, told) if "%" in told else told

    return re.sub(r"%(-?[A-Za-z]|%)", one, pattern)


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
