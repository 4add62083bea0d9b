"""Files with wrong names, and folders with unreadable files, give an error with advice."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.read import RejectFile, read_records
from s3t_ray.data.readers.reading import Reading
from s3t_ray.errors import DataError

ROW = {"id": "a", "instruction": "Q", "input": "", "output": "A"}
OTHER = {**ROW, "id": "b"}
LINE = json.dumps(ROW).encode() + b"\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def read(path: Path, **data: Any) -> tuple[list[str], Reading]:
    reading = Reading()
    return [record.id for record in read_records(Data(path=str(path), **data), Task(), reading=reading)], reading


def refused(path: Path, **data: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path, **data)
    return caught.value


def zipped(folder: Path) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("x.jsonl", LINE)
    return held.getvalue()


def tarred(folder: Path) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x.jsonl"))
    return held.getvalue()


def zstandard(folder: Path) -> bytes:
    held = pa.BufferOutputStream()
    with pa.CompressedOutputStream(held, "zstd") as stream:
        stream.write(LINE)
    return bytes(held.getvalue().to_pybytes())


def parquet(folder: Path) -> bytes:
    pq.write_table(pa.table({name: [value] for name, value in ROW.items()}), folder / "made")
    return (folder / "made").read_bytes()


def arrow(folder: Path) -> bytes:
    table = pa.table({name: [value] for name, value in ROW.items()})
    with pa.OSFile(str(folder / "made"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return (folder / "made").read_bytes()


def database(folder: Path) -> bytes:
    with sqlite3.connect(folder / "made") as made:
        made.execute("CREATE TABLE x (id TEXT)")
    made.close()
    return (folder / "made").read_bytes()


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv"])
@pytest.mark.parametrize(
    ("make", "words", "fix"),
    [
        (lambda folder: gzip.compress(LINE), "is compressed with gzip", "name it .gz"),
        (zstandard, "is compressed with zstd", "name it .zst"),
        (lambda folder: bz2.compress(LINE), "is compressed with bzip2", "unpack it"),
        (lambda folder: lzma.compress(LINE), "is compressed with xz", "unpack it"),
        (zipped, "is a ZIP archive, or an Excel workbook", "CSV"),
        (tarred, "is a TAR archive", "unpack it"),
        (parquet, "is a Parquet file", "data.format: parquet"),
        (arrow, "is an Arrow file", "save_to_disk"),
        (database, "is an SQLite database", "CSV or Parquet"),
        (lambda folder: POINTER, "is a Git LFS pointer", "git lfs pull"),
        (lambda folder: b"\n<!DOCTYPE html>\n<title>Sign in</title>", "is a web page", "download the file itself"),
        (lambda folder: LINE.decode().encode("utf-16"), "is UTF-16 text, not UTF-8", "save it as UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_reported(
    name: str, make: Callable[[Path], bytes], words: str, fix: str, tmp_path: Path
) -> None:
    """Not one "malformed row" for each line break in an archive, which set_aside would then go on without."""
    data = make(tmp_path)
    for file, content in ((name, data), (f"{name}.gz", gzip.compress(data))):
        (tmp_path / file).write_bytes(content)
        error = refused(tmp_path / file)
        assert f"{tmp_path / file} {words}" in error.problem and fix in error.fix
        with RejectFile(tmp_path / "rejects") as rejects, pytest.raises(DataError, match=words):
            list(read_records(Data(path=str(tmp_path / file), on_malformed="set_aside"), Task(), rejects))


def test_words_of_a_text_make_no_archive_of_it(tmp_path: Path) -> None:
    """`ustar` stands at place 257 of a TAR archive, and in mustard."""
    row = json.dumps({**ROW, "output": "x"}).encode()
    padded = row.replace(b'"x"', b'"' + b"m" * (257 - row.index(b'"x"') - 1) + b'ustard"')
    assert padded[257:262] == b"ustar"
    (tmp_path / "x.jsonl").write_bytes(padded)
    assert read(tmp_path / "x.jsonl")[0] == ["a"]


def test_an_archive_with_its_own_name_is_reported_too(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zipped(tmp_path))
    assert "is a ZIP archive" in refused(tmp_path / "x.zip").problem
    (tmp_path / "x.txt").write_bytes(LINE)
    assert "does not determine its format" in refused(tmp_path / "x.txt").problem
    assert read(tmp_path / "x.txt", format="jsonl")[0] == ["a"]
    (tmp_path / "x.parquet").write_bytes(POINTER)
    assert "is a Git LFS pointer" in refused(tmp_path / "x.parquet").problem


def test_files_of_several_parts_put_together_are_read(tmp_path: Path) -> None:
    """`cat` of compressed parts, and of files that each begin with a byte order mark."""
    other = json.dumps(OTHER).encode() + b"\n"
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(LINE) + gzip.compress(other))
    assert read(tmp_path / "x.jsonl.gz")[0] == ["a", "b"]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(LINE) + b"what follows")
    assert "cannot be read" in refused(tmp_path / "x.jsonl.gz").problem
    (tmp_path / "y.jsonl").write_bytes(b"\xef\xbb\xbf" + LINE + b"\xef\xbb\xbf" + other)
    assert read(tmp_path / "y.jsonl")[0] == ["a", "b"]
    for more in (b"\0" * 4096, b"\x1a", b"\x00\n"):
        (tmp_path / "z.jsonl").write_bytes(LINE + more)
        assert "z.jsonl:2: not JSON" in refused(tmp_path / "z.jsonl").problem


@pytest.mark.parametrize(
    "value",
    [
        {"id": {"0": "a"}, "instruction": {"0": "Q"}, "output": {"0": "A"}},
        {"id": ["a"], "instruction": ["Q"], "output": ["A"]},
        {"0": ROW, "1": OTHER},
    ],
)
@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_a_table_is_recognized_by_its_columns(name: str, value: object, tmp_path: Path) -> None:
    """What pandas' to_json writes unless it is told otherwise."""
    (tmp_path / name).write_text(json.dumps(value))
    assert f"{name}:1: a table stored by columns" in refused(tmp_path / name).problem
    assert "orient='records'" in refused(tmp_path / name).problem


@pytest.mark.parametrize("text", ["[{},]", "[{}] [{}]", "// rows\n[{}]", '{{"id": "a",}}'])
def test_json_that_only_some_programs_take(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text.format(*[json.dumps(ROW)] * 2) if "{}" in text else text)
    assert "x.json" in refused(tmp_path / "x.json").problem


def test_numbers_and_texts_of_one_spelling_are_one_id(tmp_path: Path) -> None:
    """The ledger refuses the second (`tests/unit/ledger/test_ingest.py`)."""
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({**ROW, "id": value}) + "\n" for value in (7, "7")))
    assert read(tmp_path / "x.jsonl")[0] == ["7", "7"]


def test_what_a_folder_holds_beside_data_is_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("x.jsonl", "._x.jsonl", ".ipynb_checkpoints/x.jsonl", "__MACOSX/._x.jsonl", ".git/x.json", "_SUCCESS"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(LINE if name == "x.jsonl" else b"\0\5\x16\7")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/y.jsonl").write_text(json.dumps(OTHER))
    (data / "more").symlink_to(tmp_path / "elsewhere")
    (data / "again").symlink_to(data)
    os.mkfifo(data / "pipe.jsonl")
    ids, reading = read(data)
    assert ids == ["a"]
    assert reading.skipped == [
        "._x.jsonl (hidden)",
        ".ipynb_checkpoints/x.jsonl (hidden)",
        "_SUCCESS (not a data file)",
        "__MACOSX/._x.jsonl (hidden)",
        "again (a link to a folder)",
        "more (a link to a folder)",
        "pipe.jsonl (not a data file)",
    ]
    (data / "y.jsonl").symlink_to(tmp_path / "elsewhere/y.jsonl")
    assert read(data)[0] == ["a", "b"], "a link to a file is read"
    (tmp_path / "linked").symlink_to(data)
    assert read(tmp_path / "linked")[0] == ["a", "b"], "and so is a folder that is named by a link"
    (tmp_path / "elsewhere/y.jsonl").unlink()
    assert "y.jsonl is a link to a file that is not there" in refused(data).problem


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """Data is read again when ids are looked up or files change: a pipe would hang, or give nothing."""
    os.mkfifo(tmp_path / "x.jsonl")
    assert "is a pipe or a device" in refused(tmp_path / "x.jsonl").problem
