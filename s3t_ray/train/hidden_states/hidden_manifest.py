"""The manifest of stored hidden states, and a check of their bytes without torch: what an audit reads.

In: the store's files of one slice at one boundary. Out: a strict frozen model, and whether every row has the bytes
that it names. The manifest is sealed with the key of its slice, so nobody without the run's keys can change states
together with their digests.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ConfigDict

from s3t_ray.store.seal import Sealed

_TYPE_BYTES = {"F32": 4, "BF16": 2}
_DIGEST_HEX = 32


class HiddenManifest(Sealed):
    """What the stored states of one boundary were made from. Rows p, p + parts, ... of the slice lie in part p."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 2
    recipe_digest: str
    base_digest: str
    slice_sha256: str
    boundary: int
    lengths: tuple[int, ...]  # tokens of each row
    digests: tuple[str, ...]  # of each row's states
    parts: int


def part_name(rank: int) -> str:
    """The file of one rank."""
    return f"part-{rank}.safetensors"


def part_is_whole(path: Path, manifest: HiddenManifest, part: int) -> bool:
    """Whether a part's file holds exactly the rows that the manifest names, each with its digest."""
    lengths, digests = manifest.lengths[part :: manifest.parts], manifest.digests[part :: manifest.parts]
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size:
            return False
        try:
            header = json.loads(file.read(length))["hidden"]
            width = int(header["shape"][1]) * _TYPE_BYTES[header["dtype"]]
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
            return False
        if width < 0 or 8 + length + sum(lengths) * width != size:
            return False  # before a row is read: the width is the file's word, and could ask for any memory
        for length, digest in zip(lengths, digests, strict=True):
            if length and hashlib.sha256(file.read(length * width)).hexdigest()[:_DIGEST_HEX] != digest:
                return False
    return True
