"""The check of stored hidden states without torch: whole files pass, and what anybody put there is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from s3t_ray.errors import TrainError
from s3t_ray.train.hidden_states.hidden_file import PartReader
from s3t_ray.train.hidden_states.hidden_manifest import HiddenManifest, part_is_whole

ROWS = (b"a" * 8, b"b" * 16)  # of one token and of two, two numbers wide


def part(header: object, rows: bytes = b"".join(ROWS)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rows


def shaped(width: object, dtype: object = "F32") -> dict[str, object]:
    return {"hidden": {"dtype": dtype, "shape": [3, width], "data_offsets": [0, 24]}}


MANIFEST = HiddenManifest(
    recipe_digest="r",
    base_digest="b",
    slice_sha256="s",
    boundary=1,
    lengths=(1, 2),
    digests=tuple(hashlib.sha256(row).hexdigest()[:32] for row in ROWS),
    parts=1,
)


def test_a_part_as_it_was_stored(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(part(shaped(2)))
    assert part_is_whole(tmp_path / "part", MANIFEST, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        part(b"[" * 100_000),
        part([]),
        part(shaped(2, [])),
        part(shaped(2), ROWS[0]),
        part(shaped(2), b"".join(ROWS) + b"c"),
        part(shaped(2), ROWS[0] + b"c" * 16),
        part(shaped(2**50)),
        part(shaped(-2)),
        part(shaped(1)),
    ],
)
def test_a_part_that_anybody_put_there(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "part").write_bytes(data)
    assert not part_is_whole(tmp_path / "part", MANIFEST, 0)


@pytest.mark.parametrize("header", [b"[" * 100_000, b"[]", b"{}", b'{"hidden":1}'])
def test_a_header_that_training_cannot_read(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "part").write_bytes(part(header))
    with pytest.raises(TrainError, match="no readable header"):
        PartReader(tmp_path / "part", "part")
