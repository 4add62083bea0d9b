"""Static files of a log: the same whatever steps it grew in, and proofs read from them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.errors import VerificationFailed
from s3t_ray.tlog.merkle import (
    CompactRange,
    consistency_path,
    inclusion_path,
    is_consistent,
    leaf_hash,
    range_root,
    root_of_inclusion,
)
from s3t_ray.tlog.tiles import TiledLog, bundle, bundle_path, new_files, tile_path, unbundled


def entries_of(count: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(count)]


def grown(steps: list[int]) -> tuple[int, dict[str, bytes]]:
    files: dict[str, bytes] = {}
    size, entries = 0, entries_of(sum(steps))
    for step in steps:
        for path, data in list(new_files(size, entries[size : size + step], files.__getitem__)):
            assert files.setdefault(path, data) == data, "a file was written twice with other bytes"
        size += step
    return size, files


def root_at(size: int) -> bytes:
    tree = CompactRange()
    for entry in entries_of(size):
        tree.append(leaf_hash(entry))
    return tree.root()


@given(st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=25)
def test_roots_and_proofs_come_from_the_files_alone(steps: list[int]) -> None:
    size, files = grown(steps)
    log = TiledLog(size, files.__getitem__)
    root = range_root(0, size, log.subtree)
    assert root == root_at(size)
    for index in {0, size // 3, size - 1} if size else set():
        path = inclusion_path(index, size, log.subtree)
        assert root_of_inclusion(leaf_hash(b"entry %d" % index), index, size, path) == root
        assert is_consistent(index, root_at(index), size, root, consistency_path(index, size, log.subtree))
        bundled = files[bundle_path(index // 256, min(256, size - index // 256 * 256))]
        assert unbundled(bundled)[index % 256] == b"entry %d" % index


def test_the_files_of_70000_entries_are_those_that_the_format_names() -> None:
    size, files = grown([70_000])
    assert size == 70_000
    level0 = [path for path in files if path.startswith("tile/0/")]
    assert len(level0) == 274 and tile_path(0, 273, 112) in files
    assert {path for path in files if path.startswith("tile/1/")} == {"tile/1/000", "tile/1/001.p/17"}
    assert {path for path in files if path.startswith("tile/2/")} == {"tile/2/000.p/1"}


def test_paths() -> None:
    assert tile_path(0, 1_234_067) == "tile/0/x001/x234/067"
    assert tile_path(2, 5, 9) == "tile/2/005.p/9"
    assert bundle_path(1000) == "tile/entries/x001/000"


def test_a_file_that_was_cut_is_noticed() -> None:
    size, files = grown([5])
    files[tile_path(0, 0, 5)] = files[tile_path(0, 0, 5)][:-1]
    with pytest.raises(VerificationFailed, match="has 159 bytes, not 160"):
        range_root(0, size, TiledLog(size, files.__getitem__).subtree)
    for cut in (bundle([b"abc"])[:-1], b"\0"):
        with pytest.raises(VerificationFailed, match="truncated"):
            unbundled(cut)
    with pytest.raises(ValueError, match="at most 65535 bytes"):
        bundle([b"x" * 65_536])
