"""Splits text into shingles (runs of words), to measure the similarity of texts.

In: a record's content. Out: distinct shingles. Ignores case and punctuation. A character of a script without spaces
counts as a word. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# Han, kana and hangul characters each count as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_NAMES_NOT_CONTENT = frozenset({"role", "label"})


def text_shingles(content: Mapping[str, Any], words: int) -> list[bytes]:
    """The distinct runs of `words` words; a single shingle if the text has fewer words."""
    found = [word for text in _texts(content) for word in _WORD.findall(text.casefold())]
    runs = max(1, len(found) - words + 1)
    return list(dict.fromkeys(" ".join(found[start : start + words]).encode() for start in range(runs)))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in _NAMES_NOT_CONTENT:
                yield from _texts(item)
