"""A record's content as a short signature, by which nearly equal contents are found.

In: a content and a keyed hash of a shingle (some words in a row, or whatever else a task's records are made of). Out:
a MinHash signature, a byte a permutation; equal contents have equal signatures, and the share of equal bytes estimates
the Jaccard likeness of the two sets of shingles. Pure. The hash must be keyed: a plain one would let whoever reads the
signatures test guesses at the contents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from s3t_ray.data.shingles import text_shingles


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
