"""The manifest of stored hidden states, and a check of their bytes without torch, for audits.

In: the stored files of one slice at one boundary. Out: a strict frozen model, and whether every row matches its
digest. The manifest is sealed with the slice's key, so nobody without the run's keys can change the states and their
digests together.
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
    """The inputs that the stored states of one boundary were made from. Part p holds rows p, p + parts, ..."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 2
    recipe_digest: str
    base_digest: str
    slice_sha256: str
    boundary: int
    lengths: tuple[int, ...]  # tokens per row
    digests: tuple[str, ...]  # digest of each row's states
    parts: int


def part_name(rank: int) -> str:
    """The file name of one rank's part."""
    return f"part-{rank}.safetensors"


def part_is_whole(path: Path, manifest: HiddenManifest, part: int) -> bool:
    """Whether a part's file holds exactly the manifest's rows, each with its digest."""
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
            return False  # check before reading a row: the file states the width, which could request any memory
        for length, digest in zip(lengths, digests, strict=True):
            if length and hashlib.sha256(file.read(length * width)).hexdigest()[:_DIGEST_HEX] != digest:
                return False
    return True
