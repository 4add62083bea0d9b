"""Computes a short MinHash signature of a record's content, for finding near-duplicates.

In: a content and a keyed hash for shingles (runs of words, or other pieces for other tasks). Out: a MinHash signature
with one byte per permutation. Equal contents have equal signatures, and the fraction of equal bytes estimates the
Jaccard similarity of the two sets of shingles. Pure. The hash must be keyed; otherwise anyone who reads the signatures
could test guesses about the contents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from s3t_ray.data.shingles import text_shingles


class Sketcher:
    """Computes signatures of `permutations` bytes over shingles of `shingle_words` words."""

    def __init__(
        self,
        permutations: int,
        shingle_words: int,
        shingle_hash: Callable[[bytes], int],
        shingles: Callable[[Mapping[str, Any], int], list[bytes]] | None = None,
    ) -> None:
        """`shingle_hash`: a keyed 32-bit hash. `shingles`: content, words -> shingles; None: those of its texts."""
        from datasketch import MinHash  # imports scipy, so only when records are sketched

        self._shingle_words = shingle_words
        self._shingles = shingles or text_shingles
        self._empty = MinHash(num_perm=permutations, scheme="affine32", hashfunc=shingle_hash)

    def sketch(self, content: str) -> bytes:
        """The signature of a content (canonical JSON)."""
        made = self._empty.copy()
        made.update_batch(self._shingles(json.loads(content), self._shingle_words))
        signature: bytes = (made.hashvalues & 0xFF).astype("u1").tobytes()  # b-bit MinHash: the low byte is enough
        return signature
