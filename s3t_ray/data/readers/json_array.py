"""Reads a JSON array of any length one element at a time, including one inside an object, as in {"data": [...]}.

In: an open text file. Out: its elements in order. Keeps one element and a small window of the file in
memory. Never reads the entire file at once, even if it is invalid.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TextIO

from s3t_ray.data.readers.splits import split_named
from s3t_ray.data.row_fields import HugeNumber, RepeatedField

WINDOW = 1 << 16  # characters read at a time
LONGEST = 1 << 26  # maximum characters per element; a longer one indicates a missing bracket or quote
_SPACE = " \t\r\n"
_ENDS_NUMBER = (*_SPACE, ",", "]", "}")

WRAPPERS = ("data", "rows", "records", "examples", "instances", "items", "train")
"""Member names under which an object may contain the array of records."""
_MOST_DIGITS = 1000


class BrokenArray(ValueError):
    """The file is not a valid JSON array. The message says where it becomes invalid."""


def decoder() -> json.JSONDecoder:
    """Python's JSON decoder with two changes: an integer with too many digits becomes a HugeNumber instead of an error,
    and an object with a duplicate field becomes a RepeatedField instead of keeping the last value.
    """
    return json.JSONDecoder(
        parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else HugeNumber(),
        object_pairs_hook=_object,
    )


def _object(pairs: list[tuple[str, object]]) -> object:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    names = [name for name, _ in pairs]
    return RepeatedField(next(name for name in made if names.count(name) > 1))


def array_items(file: TextIO) -> Iterator[object]:
    """The elements of the array in `file`. Raises BrokenArray where it is not valid."""
    window = _Window(file)
    if window.next_character() != "[":
        raise BrokenArray("it does not begin with [")
    yield from _elements(window)
    if window.next_character():
        raise BrokenArray("text follows the ] of the array")


def document_items(file: TextIO, split: str = "train") -> Iterator[object]:
    """The elements of the array that an object holds under a name in WRAPPERS; without one, the object itself.

    Raises BrokenArray if `file` is not one JSON object, or holds the arrays of several splits.
    """
    window = _Window(file)
    if window.next_character() != "{":
        raise BrokenArray("it does not begin with {")
    window.at += 1
    members: dict[str, object] = {}
    names: set[str] = set()
    wrapped: list[str] = []
    while window.next_character() != "}":
        if names:
            if window.next_character() != ",":
                raise BrokenArray("there is no comma between two members")
            window.at += 1
            window.next_character()
        name = window.decode(len(names) + 1)
        if not isinstance(name, str) or window.next_character() != ":":
            raise BrokenArray("a member has no name")
        if name in names:
            raise BrokenArray(f"member {name!r} is repeated")
        names.add(name)
        window.at += 1
        if window.next_character() == "[" and name in WRAPPERS:
            wrapped.append(name)
            _check_split(wrapped, name, split)
            yield from _elements(window)
        else:
            members[name] = window.decode(len(names))
    window.at += 1
    if window.next_character():
        raise BrokenArray("text follows the } of the object")
    if not wrapped:
        yield members
    for name, value in members.items():
        if wrapped and split_named(name) is not None and isinstance(value, list):
            _check_split([*wrapped, name], name, split)


def _check_split(arrays: Sequence[str], name: str, split: str) -> None:
    """Raise BrokenArray if an object holds several arrays of rows, or only that of another split."""
    if len(arrays) > 1:
        raise BrokenArray(f"it holds several arrays of rows ({', '.join(arrays)}), but a file may hold only one split")
    told = split_named(name)
    if told is not None and told != (split_named(split) or split):
        raise BrokenArray(f"its rows are in {name!r}, but data.split is {split}")


def _elements(window: _Window) -> Iterator[object]:
    window.at += 1
    number = 0
    while window.next_character() != "]":
        if number:
            if window.next_character() != ",":
                raise BrokenArray(f"there is neither a comma nor ] after element {number}")
            window.at += 1
            window.next_character()
        number += 1
        yield window.decode(number)
    window.at += 1


class _Window:
    """The part of the file in memory, and the current position in it."""

    def __init__(self, file: TextIO) -> None:
        self.at = 0
        self._text = ""
        self._file = file
        self._decoder = decoder()

    def next_character(self) -> str:
        """Skip whitespace and return the next character, or "" at the end of the file."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self._text):
                return self._text[self.at]
            self._text, self.at = self._file.read(WINDOW), 0
            if not self._text:
                return ""

    def decode(self, number: int) -> object:
        """Decode the value at the current position. Reads more text, twice as much each time, until it is complete."""
        amount = WINDOW
        while True:
            reason = "it is truncated"
            try:
                value, end = self._decoder.raw_decode(self._text, self.at)
            except json.JSONDecodeError as error:
                reason = error.msg
            except RecursionError:
                raise BrokenArray(f"element {number} is nested too deeply") from None
            except ValueError as error:
                reason = str(error)
            else:
                # A number may continue after the window ("0." would be read as 0), so its end must be visible.
                if isinstance(value, (dict, list, str)) or self._text[end : end + 1] in _ENDS_NUMBER:
                    self.at = end
                    return value
            more = self._file.read(amount) if len(self._text) - self.at < LONGEST else ""
            if not more:
                raise BrokenArray(f"element {number} is not JSON: {reason}")
            self._text, self.at, amount = self._text[self.at :] + more, 0, amount * 2
