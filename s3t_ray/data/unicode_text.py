"""Whether a text can be encoded. JSON and command lines can contain half of a surrogate pair, which is no character."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
