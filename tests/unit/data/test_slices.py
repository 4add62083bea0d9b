"""Slices on disk: the same rows always give the same bytes."""

from __future__ import annotations

import hashlib
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.data import slice_file
from s3t_ray.data.partition import HOLDOUT, Place
from s3t_ray.data.slices import SLICE_SCHEMA, Row, partition_rows, read_slice, rewrite_slice, write_slice
from s3t_ray.errors import StoreError


def rows(count: int, size: int = 40, start: int = 0) -> list[Row]:
    return [row(number, size) for number in range(start, start + count)]


def row(number: int, size: int = 40) -> Row:
    return Row(f"r{number}", f"ü{number}" + "x" * size, hashlib.sha256(b"%d" % number).digest())


def test_written_rows_come_back_in_order(tmp_path: Path) -> None:
    written = write_slice(tmp_path / "deep" / "a.parquet", rows(3000))
    assert list(read_slice(written.path)) == rows(3000)
    assert written.rows == 3000
    assert written.sha256 == hashlib.sha256(written.path.read_bytes()).hexdigest()
    assert pq.read_schema(written.path).equals(SLICE_SCHEMA)
    metadata = pq.read_metadata(written.path)
    assert metadata.num_row_groups == 3
    assert metadata.row_group(0).column(0).statistics is None
    assert [item.name for item in written.path.parent.iterdir()] == ["a.parquet"]


def test_empty_slices_are_files_too(tmp_path: Path) -> None:
    one, other = write_slice(tmp_path / "a", []), write_slice(tmp_path / "b", [])
    assert (one.rows, one.sha256) == (0, other.sha256)
    assert list(read_slice(one.path)) == []


def test_row_groups_end_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_file, "_GROUP_BYTES", 1000)
    assert pq.read_metadata(write_slice(tmp_path / "a", rows(10, size=400)).path).num_row_groups == 4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.sets(st.integers(0, 60)))
def test_a_rewritten_slice_is_one_that_never_held_the_rows(
    tmp_path_factory: pytest.TempPathFactory, count: int, gone: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("slices")
    source = write_slice(folder / "source", rows(count))
    rewritten = rewrite_slice(source.path, folder / "target", frozenset(row(number).digest for number in gone))
    never = write_slice(folder / "never", [row(number) for number in range(count) if number not in gone])
    assert (rewritten.sha256, rewritten.rows) == (never.sha256, never.rows)


def test_no_value_of_a_dropped_row_is_left_in_the_bytes(tmp_path: Path) -> None:
    secret = Row("Ada-id", "Ada-content", b"A" * 32)
    source = write_slice(tmp_path / "a", [*rows(5), secret])
    assert b"Ada-id" in source.path.read_bytes()
    kept = rewrite_slice(source.path, tmp_path / "b", frozenset([secret.digest]))
    assert b"Ada" not in kept.path.read_bytes()


PLACED = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=80)


@settings(max_examples=25, deadline=None)
@given(PLACED, st.sampled_from([0, 500, 5000, 1 << 20]))
def test_the_files_do_not_depend_on_memory(
    tmp_path_factory: pytest.TempPathFactory, spots: list[tuple[int, int]], memory: int
) -> None:
    folder = tmp_path_factory.mktemp("partition")
    stream = [(Place(*spot), row(number)) for number, spot in enumerate(spots)]
    got = partition_rows(iter(stream), folder / "got", memory_bytes=memory, places=[HOLDOUT])
    assert set(got) == {HOLDOUT, *(place for place, _ in stream)}
    for place, file in got.items():
        plain = write_slice(folder / "plain", [row for spot, row in stream if spot == place])
        assert (file.sha256, file.rows) == (plain.sha256, plain.rows)
    assert sorted(item.name for item in (folder / "got").iterdir()) == sorted(file.path.name for file in got.values())


def test_open_files_do_not_grow_with_the_slices(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        stream = ((Place(number % 200, 0), row(number)) for number in range(600))
        assert len(partition_rows(stream, tmp_path, memory_bytes=10_000)) == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        stream = ((Place(0, number % 4), row(number)) for number in range(count))
        tracemalloc.start()
        try:
            files = partition_rows(stream, tmp_path / str(count), memory_bytes=100_000)
            assert sum(sum(1 for _ in read_slice(file.path)) for file in files.values()) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(24_000) < 1.3 * peak(6_000)


def test_a_failing_source_leaves_no_spill_behind(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[Place, Row]]:
        yield from ((Place(0, 0), row(number)) for number in range(50))
        raise KeyError("source")

    with pytest.raises(KeyError):
        partition_rows(failing(), tmp_path / "out", memory_bytes=1000)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failing_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", rows(3)).path

    def failing() -> Iterator[Row]:
        yield row(9)
        raise KeyError("source")

    with pytest.raises(KeyError):
        write_slice(path, failing())
    assert list(read_slice(path)) == rows(3)
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_missing_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        list(read_slice(tmp_path / "nowhere"))
    cut = write_slice(tmp_path / "cut", rows(50)).path
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(StoreError, match="cut is damaged"):
        list(read_slice(cut))
    foreign = tmp_path / "foreign"
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(StoreError, match="is not a slice: its columns are"):
        list(read_slice(foreign))
    flipped = write_slice(tmp_path / "flipped", rows(50)).path
    data = bytearray(flipped.read_bytes())
    data[40:80] = bytes(40)
    flipped.write_bytes(data)
    with pytest.raises(StoreError, match="flipped"):
        list(read_slice(flipped))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        partition_rows([(Place(0, 0), row(1))], tmp_path / "file" / "folder")
    with pytest.raises(StoreError, match="cannot be written"):
        write_slice(tmp_path / "file" / "a.parquet", [row(1)])
