"""Single values of a row, taken as text or refused with a reason that names field and type and never the value."""

from __future__ import annotations

from collections.abc import Mapping


class MalformedRow(ValueError):
    """A row that cannot become a record; `fix` says what helps, where it is known. Never leaves the data room."""

    def __init__(self, reason: str, fix: str | None = None) -> None:
        self.fix = fix
        super().__init__(reason)


class HugeNumber:
    """Stands for a whole number of more digits than can be held."""

    def __str__(self) -> str:
        return "a number of more digits than can be held"


def text_of(row: Mapping[str, object], field: str, default: str | None = None) -> str:
    """The non-blank text of `field`; `default`, where given, for a field that is absent, null or blank."""
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


def encodable(text: str, field: str) -> str:
    """`text`, if it can be encoded: JSON can spell half of a surrogate pair, which no file or tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedRow(f"field {field!r} holds half a surrogate pair at character {error.start}") from error
    return text


def type_name(value: object) -> str:
    """The type of a value in words."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    names[HugeNumber] = "a number of more digits than can be held"
    return names.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)
