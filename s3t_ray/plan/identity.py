"""Stage ids: a stage is named by everything that it was trained on.

Pure: values in, digests out. The first field of every hash separates domains, and all fields are
length-prefixed, so different inputs never give the hash the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

STAGE_DOMAIN = "s3t/stage/1"
RECIPE_DOMAIN = "s3t/recipe/1"


def digest_fields(*fields: str) -> str:
    """The SHA-256 of the length-prefixed UTF-8 fields, in hex."""
    return hashlib.sha256(_prefixed(*fields)).hexdigest()


def _prefixed(*fields: str) -> bytes:
    encoded = [field.encode() for field in fields]
    return b"".join(len(data).to_bytes(8, "big") + data for data in encoded)


def recipe_digest(recipe: Mapping[str, object]) -> str:
    """The digest of everything except the data that affects the weights, from its canonical JSON form."""
    return digest_fields(RECIPE_DOMAIN, json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False))


def stage_id(recipe: str, parent: str | None, shard: int, slice_index: int, slice_digest: str) -> str:
    """The id of the stage that adds `slice_index` of `shard` on top of `parent` (None: the base).

    The id includes the place (shard, slice) in addition to the slice's digest: seeds and data order
    derive from the place, so two places with equal data (such as two empty slices) train differently
    and must not share an id.
    """
    return digest_fields(STAGE_DOMAIN, recipe, parent or "base", str(shard), str(slice_index), slice_digest)


class StageNames:
    """`stage_id` for the stages of one shard, optimized for millions of ids that share most of their input."""

    def __init__(self, recipe: str, shard: int, slice_digests: Mapping[int, str]) -> None:
        self._head = _prefixed(STAGE_DOMAIN, recipe)
        self._base = _prefixed("base")
        self._tails = {index: _prefixed(str(shard), str(index), digest) for index, digest in slice_digests.items()}

    def of(self, parent: str | None, slice_index: int) -> str:
        """The id of the stage that adds this slice on top of `parent`, an id from this object (None: the base)."""
        middle = self._base if parent is None else _ID_LENGTH + parent.encode()
        return hashlib.sha256(self._head + middle + self._tails[slice_index]).hexdigest()


_ID_LENGTH = (64).to_bytes(8, "big")  # length of an id, a SHA-256 in hex
