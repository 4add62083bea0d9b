"""Reads and checks single fields of a row.

In: a mapping. Out: text that every file, hash and tokenizer accepts, or a MalformedRow whose message names fields and
types, but never a value, because messages are logged.
"""

from __future__ import annotations

from collections.abc import Mapping


class MalformedRow(ValueError):
    """A row is not a valid record. `fix` is the remedy, if known. Never leaves this package."""

    def __init__(self, reason: str, fix: str | None = None) -> None:
        self.fix = fix
        super().__init__(reason)


class HugeNumber:
    """Placeholder for an integer with too many digits."""

    def __str__(self) -> str:
        return "a number with too many digits"


class RepeatedField:
    """Placeholder for an object with a duplicate field, whose value is ambiguous."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return f"an object in which field {self._name[:80]!r} is repeated"


def text_field(row: Mapping[str, object], field: str, default: str | None = None) -> str:
    """The non-blank text of `field`; `default`, if given, for a missing, null or blank field. Raises MalformedRow."""
    value = row.get(field)
    if value is None:
        if default is not None:
            return default
        raise MalformedRow(f"field {field!r} is missing" if field not in row else f"field {field!r} is null")
    if not isinstance(value, str):
        raise MalformedRow(f"field {field!r} is {type_name(value)}, not text")
    if not value.strip():
        if default is not None:
            return default
        raise MalformedRow(f"field {field!r} is empty")
    return encodable(value, field)


def name_field(row: Mapping[str, object], field: str, what: str) -> str:
    """An id or a subject: text, or a whole number in decimal. Raises MalformedRow."""
    if field not in row:
        raise MalformedRow(
            f"field {field!r} (data.{what}_field) is missing",
            "name the field that holds the ids in data.id_field, or set data.id_field: null to derive ids from contents"
            if what == "id"
            else f"name another field in data.{what}_field, or remove it",
        )
    value = row[field]
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        kind = "a floating-point number" if isinstance(value, float) else type_name(value)
        raise MalformedRow(
            f"field {field!r} (data.{what}_field) is {kind}, not text or a whole number",
            None if value is None else f"write {field} as text, or as a whole number",
        )
    if not value.strip():
        raise MalformedRow(f"field {field!r} (data.{what}_field) is empty")
    return encodable(value, field)


def type_name(value: object) -> str:
    """The type of a value, for messages."""
    if isinstance(value, RepeatedField):
        return str(value)
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    names[HugeNumber] = str(HugeNumber())
    return names.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)


def encodable(text: str, field: str) -> str:
    """`text`, if it can be encoded as UTF-8. Raises MalformedRow otherwise."""
    # JSON can contain half of a surrogate pair, which no file, hash or tokenizer accepts.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedRow(
            f"field {field!r} is not valid Unicode: half a surrogate pair at character {error.start}"
        ) from error
    return text
