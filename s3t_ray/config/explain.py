"""Turns pydantic's errors into messages that name the field, its line, its value and the fix.

In: a ValidationError and its document. Out: one ConfigError with all errors. Never shows `ledger.url`,
which can contain a password.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from s3t_ray.config.document import Document, FieldPath
from s3t_ray.config.fields import FieldDoc, fields, sections
from s3t_ray.config.refuse import REFUSED
from s3t_ray.errors import ConfigError

_SECRET = "ledger.url"
_WORDS = (
    ("Input should be", "it must be"),
    ("valid integer", "whole number"),
    ("valid string", "text (in quotes)"),
    ("valid boolean", "true or false"),
    ("valid array", "list"),
    ("a true or false", "true or false"),
    ("a text", "text"),
    ("an object", "a section of fields"),
    ("Tuple should have", "a list with"),
    (" after validation, not 0", ""),
    ("String should", "it must"),
)
_SHOWN = 80  # maximum characters shown of a value


def explain(error: ValidationError, document: Document) -> ConfigError:
    """The ConfigError that lists every error in `document`."""
    faults: dict[FieldPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        faults.setdefault(_path(detail, document.tree), []).append(detail)
    # An error inside a value explains the error of the value that contains it.
    outer = {path[:length] for path in faults for length in range(len(path))}
    told = [_tell(path, details, document) for path, details in faults.items() if path not in outer]
    if len(told) == 1:
        problem, fix = told[0]
        return ConfigError(f"{document.origin}: {problem}", fix)
    problems = "".join(f"\n  {number}. {problem}" for number, (problem, _) in enumerate(told, start=1))
    fixes = "".join(f"\n  {number}. {fix}" for number, (_, fix) in enumerate(told, start=1))
    return ConfigError(f"{document.origin}: {len(told)} errors{problems}", fixes)


def _path(detail: ErrorDetails, tree: Any) -> FieldPath:
    """The location of the error in the document: pydantic's location without its names for union members."""
    path: list[str | int] = []
    node = tree
    for depth, part in enumerate(detail["loc"], start=1):
        if isinstance(node, dict) and part in node:
            node = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif not (detail["type"] == "missing" and depth == len(detail["loc"])):
            continue
        path.append(part)
    return tuple(path)


def _tell(path: FieldPath, details: list[ErrorDetails], document: Document) -> tuple[str, str]:
    """The problem and the fix for one field. Several details: no member of a union accepted the value."""
    first = details[0]
    if first["type"] == REFUSED:
        context = first["ctx"]
        return f"{context['field']} = {context['value']}: {context['why']}", str(context["fix"])
    name = ".".join(str(part) for part in path)
    place = document.place(path)
    where = f" ({place})" if place else ""
    known = _field(path)
    if first["type"] == "missing":
        if known:
            return f"{name} is missing", f"add {name}: {_meaning(known)}"
        required = ", ".join(field.name for field in fields() if field.section == name and field.default is None)
        return f"{name} is missing", f"add the section {name} with {required}"
    value = "(not shown)" if name == _SECRET else _show(first["input"])
    if first["type"] == "extra_forbidden":
        return f"{name} = {value}{where}: there is no such field", _nearest(path)
    why = " or ".join(dict.fromkeys(_reason(detail) for detail in details)).replace(" or it must be", " or")
    if known:
        return f"{name} = {value}{where}: {why}", f"{_closest_choice(first)}{name} takes {_meaning(known)}"
    return f"{name} = {value}{where}: {why}", f"write the fields of {name} below it, indented, or remove it"


def _reason(detail: ErrorDetails) -> str:
    message = detail["msg"]
    for theirs, ours in _WORDS:
        message = message.replace(theirs, ours)
    return message[:1].lower() + message[1:]


def _closest_choice(detail: ErrorDetails) -> str:
    expected = str(detail.get("ctx", {}).get("expected", ""))
    choices = [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]
    near = get_close_matches(str(detail["input"]), choices, n=1) if expected else []
    return f"did you mean {near[0]}? " if near else ""


def _field(path: FieldPath) -> FieldDoc | None:
    """The field at `path`, or the field that contains `path` as an item."""
    name = ".".join(part for part in path if isinstance(part, str))
    return next((field for field in fields() if field.path == name), None)


def _meaning(field: FieldDoc) -> str:
    return f"{field.takes}. {field.doc}"


def _nearest(path: FieldPath) -> str:
    """Advice for an unknown field: the closest name in its section, otherwise in all sections."""
    *outer, last = [str(part) for part in path]
    section = ".".join(outer)
    siblings = {field.name: field.path for field in fields() if field.section == section}
    siblings |= {
        inner.path.rpartition(".")[2]: inner.path
        for inner in sections()
        if inner.path and inner.path.rpartition(".")[0] == section
    }
    if near := get_close_matches(last, siblings, n=1):
        return f"did you mean {siblings[near[0]]}?"
    everywhere = {field.name: field.path for field in reversed(fields())}
    if near := get_close_matches(last, everywhere, n=1, cutoff=0.8):
        return f"did you mean {everywhere[near[0]]}?"
    return f"remove it; {section or 'the top'} has {', '.join(sorted(siblings))}"


def _show(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
