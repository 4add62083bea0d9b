"""Makes a base model's chat template independent of the current date, so that its output depends only on the messages.

In: a tokenizer and the task. Out: the template to render with. Templates of Llama 3.2 and others use today's date
(`strftime_now`). The config fixes it (`task.date`), so that a stage trained tomorrow is the same. Reads the clock only
to suggest a date, and never depends on the machine's locale.
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
    """The tokenizer's chat template with `task.date` instead of the current date.

    Raises ConfigError if there is no template, if it uses the date and `task.date` is not set, or if it is random.
    """
    template = tokenizer.chat_template
    if isinstance(template, Mapping):  # several templates by name; never switch to the one for tools automatically
        template = template.get("default")
    if not template:
        raise ConfigError(
            "task.prompt = chat_template: the tokenizer of the base model has no chat template",
            "restore its chat_template.jinja, use a base model with a template, or set task.prompt: alpaca or plain",
        )
    if _RANDOM.search(template):
        raise ConfigError(
            "the chat template of the base model is random, so no stage could be trained twice with the same result",
            "use task.prompt: alpaca or plain, or use a copy of the base model with another chat_template.jinja",
        )
    if not _CLOCK.search(template):
        return str(template)
    if task.date is None:
        raise ConfigError(
            "the chat template of the base model uses today's date (strftime_now), so a stage would depend on the day "
            "of its training",
            f"set the date for all stages: task.date: {date.today().isoformat()}",
        )
    day = task.date
    pinned = _CALL.sub(lambda call: _literal(formatted(day, call["format"])), str(template))
    if _CLOCK.search(pinned):
        raise ConfigError(
            "the chat template of the base model computes its date format, so the date cannot be fixed",
            "use a copy of the base with a chat_template.jinja that has a fixed format, such as "
            "strftime_now('%d %B %Y')",
        )
    return pinned


def formatted(day: date, pattern: str) -> str:
    """`day`, at midnight, formatted with strftime's `pattern`, always in English."""
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
