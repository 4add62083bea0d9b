"""A record's content as a short signature, by which nearly equal contents are found.

In: a content and a keyed hash of a shingle (some words in a row, or whatever else a task's records are made of). Out:
a MinHash signature, a byte a permutation; equal contents have equal signatures, and the share of equal bytes estimates
the Jaccard likeness of the two sets of shingles. Words are compared without case and punctuation; a character of a
script without spaces counts as a word. Pure. The hash must be keyed: a plain one would let whoever reads the signatures
test guesses at the contents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Han, kana and hangul are written without spaces: each character by itself.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_NAMES_NOT_CONTENT = frozenset({"role", "label"})


class Sketcher:
    """Signatures of `permutations` bytes over shingles of `shingle_words` words."""

    def __init__(
        self,
        permutations: int,
        shingle_words: int,
        shingle_hash: Callable[[bytes], int],
        shingles: Callable[[Mapping[str, Any], int], list[bytes]] | None = None,
    ) -> None:
        """`shingle_hash`: keyed, 32 bits. `shingles`: of a content; None: those of its texts."""
        from datasketch import MinHash  # brings scipy: only when records are sketched

        self._shingle_words = shingle_words
        self._shingles = shingles or text_shingles
        self._empty = MinHash(num_perm=permutations, scheme="affine32", hashfunc=shingle_hash)

    def sketch(self, content: str) -> bytes:
        """The signature of a content (canonical JSON)."""
        made = self._empty.copy()
        made.update_batch(self._shingles(json.loads(content), self._shingle_words))
        signature: bytes = (made.hashvalues & 0xFF).astype("u1").tobytes()  # b-bit MinHash: the low byte is enough
        return signature


def text_shingles(content: Mapping[str, Any], words: int) -> list[bytes]:
    """The distinct runs of `words` words; one shingle of all there are, if they are fewer."""
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
