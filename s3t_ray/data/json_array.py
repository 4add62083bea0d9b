"""A JSON array of any length, one element at a time.

In: an open text file. Out: its elements in order; memory holds one element and a small window of the
file. Must never read the whole file, not even to find that it is broken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TextIO

WINDOW = 1 << 16  # characters read at a time
LONGEST = 1 << 26  # characters of one element; a longer one is taken for a missing bracket or quote
_SPACE = " \t\r\n"
_ENDS_NUMBER = (*_SPACE, ",", "]")


class BrokenArray(ValueError):
    """The file is not one JSON array; the message says where it ceases to be one."""


def array_items(file: TextIO) -> Iterator[object]:
    """The elements of the array that `file` holds. Raises BrokenArray where it is not JSON."""
    window = _Window(file)
    if window.next_character() != "[":
        raise BrokenArray("it does not begin with [")
    window.at += 1
    number = 0
    while window.next_character() != "]":
        if number:
            if window.next_character() != ",":
                raise BrokenArray(f"after element {number} stands neither a comma nor ]")
            window.at += 1
            window.next_character()
        number += 1
        yield window.decode(number)
    window.at += 1
    if window.next_character():
        raise BrokenArray(f"text follows the ] after element {number}")


class _Window:
    """The part of the file that is being looked at, and where in it we are."""

    def __init__(self, file: TextIO) -> None:
        self.at = 0
        self._text = ""
        self._file = file
        self._decoder = json.JSONDecoder()

    def next_character(self) -> str:
        """Skip white space; the character there, "" at the end of the file."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self._text):
                return self._text[self.at]
            self._text, self.at = self._file.read(WINDOW), 0
            if not self._text:
                return ""

    def decode(self, number: int) -> object:
        """The value that begins here; reads on, twice as much each time, until it is whole."""
        amount = WINDOW
        while True:
            reason = "it is cut off"
            try:
                value, end = self._decoder.raw_decode(self._text, self.at)
            except json.JSONDecodeError as error:
                reason = error.msg
            except RecursionError:
                raise BrokenArray(f"element {number} is nested too deeply") from None
            else:
                # A number may go on behind the window ("0." was read as 0): what ends it must be there.
                if isinstance(value, (dict, list, str)) or self._text[end : end + 1] in _ENDS_NUMBER:
                    self.at = end
                    return value
            more = self._file.read(amount) if len(self._text) - self.at < LONGEST else ""
            if not more:
                raise BrokenArray(f"element {number} is not JSON: {reason}")
            self._text, self.at, amount = self._text[self.at :] + more, 0, amount * 2
