"""Inputs of the kinds that public bug reports about training data tell of: each is read as it says, or refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.readers.reading import Reading
from s3t_ray.errors import DataError

CHAT = Task(prompt="chat_template")
TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
ROW = {"id": "a", "instruction": "Q", "input": "", "output": "A"}
TAKEN = {"instruction": "Q", "input": "", "output": "A"}


def read(path: Path, task: Task | None = None, **data: Any) -> tuple[list[tuple[str, dict[str, Any]]], Reading]:
    reading = Reading()
    records = read_records(Data(path=str(path), **data), task or Task(), reading=reading)
    return [(record.id, json.loads(record.content)) for record in records], reading


def refused(path: Path, task: Task | None = None, **data: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path, task, **data)
    return caught.value


def put(folder: Path, name: str, *rows: object, end: str = "\n") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + end for row in rows), newline="")
    return path


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n\r\n", "\n\n"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_lines_end_as_any_machine_ends_them(name: str, end: str, tmp_path: Path) -> None:
    path = put(tmp_path, name, ROW, {**ROW, "id": "b"}, end=end)
    assert read(path)[0] == [("a", TAKEN), ("b", TAKEN)]
    path.write_bytes(path.read_bytes().removesuffix(end.encode()))
    assert read(path)[0] == [("a", TAKEN), ("b", TAKEN)]
    broken = put(tmp_path, name, ROW, {"id": "b"}, end=end)
    line = 2 if end in ("\r", "\r\n") else 3
    assert f"{name}:{line}: there is neither instruction" in refused(broken).problem


def test_files_without_a_row_are_said_or_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", ROW)
    (tmp_path / "b.jsonl").write_bytes(b"")
    (tmp_path / "c.csv").write_text("id,text\n")
    records, reading = read(tmp_path)
    assert [identity for identity, _ in records] == ["a"]
    assert f"2 files without a row: {tmp_path}/b.jsonl, {tmp_path}/c.csv" in reading.notes()
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b""))
    assert len(read(tmp_path)[1].empty) == 3
    for name in ("d.jsonl.gz", "d.jsonl.zst", "d.parquet"):
        (tmp_path / name).write_bytes(b"")
        assert name in refused(tmp_path).problem
        (tmp_path / name).unlink()
    assert "holds no records" in refused(tmp_path / "b.jsonl").problem
