"""Files as other tools leave them: read as they were meant, or refused with what they are and what to do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.readers.reading import Reading
from s3t_ray.errors import DataError

ROWS = [{"id": f"r{at}", "instruction": "Q", "output": f"A{at}"} for at in range(3)]
CHAT = Task(prompt="chat_template")


def read(path: Path, task: Task | None = None, **data: Any) -> tuple[list[str], Reading]:
    reading = Reading()
    records = read_records(Data(path=str(path), **data), task or Task(), reading=reading)
    return [record.id for record in records], reading


def refused(path: Path, task: Task | None = None, **data: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path, task, **data)
    assert caught.value.fix
    return caught.value


def put(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_only_the_first_column_of_a_table_may_lack_a_name(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,,instruction,output\na,0,Q,A\n")
    assert "a column without a name" in refused(path).problem


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("id;instruction;output\na;Q;A\n", "separated by ';'", "commas"),
        ("id\tinstruction\toutput\na\tQ\tA\n", "separated by '\\t'", "data.format: tsv"),
        ("sep=,\nid,instruction,output\na,Q,A\n", "a line that only Excel reads", "remove the first line"),
        ('id,instruction,output\na,"He said \\"hi\\"",A\n', "x.csv, line 2", "written twice"),
    ],
)
def test_tables_of_other_programs(text: str, problem: str, fix: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    error = refused(path)
    assert problem in error.problem and fix in error.fix


def test_a_table_by_ids_and_text_of_two_bytes_a_letter(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({row["id"]: row for row in ROWS}))
    assert "an object of rows keyed by id" in refused(path).problem
    path.write_bytes(json.dumps(ROWS).encode("utf-16-le"))
    assert "is UTF-16 text" in refused(path).problem
    path.write_text(json.dumps({"id": "a", "instruction": "Q", "output": "A", "meta": {"by": "x"}, "more": {"y": "z"}}))
    assert read(path)[0] == ["a"]


def test_an_object_of_several_splits(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for names in (("train", "validation"), ("test", "train"), ("data", "records")):
        path.write_text(json.dumps({name: [ROWS[at]] for at, name in enumerate(names)}))
        assert "several arrays of rows" in refused(path).problem
    path.write_text(json.dumps({"version": [1], "train": ROWS}))
    assert len(read(path)[0]) == 3
    assert "its rows are in 'train', but data.split is test" in refused(path, split="test").problem


def test_parquet_files_put_together(tmp_path: Path) -> None:
    """The footer of the last one counts from its own start: rows of the first one would be read in its place."""
    one, all_ = tmp_path / "one.parquet", tmp_path / "all.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), one)
    all_.write_bytes(one.read_bytes() * 2)
    assert "several Parquet files joined into one" in refused(all_).problem
    pq.write_table(
        pa.Table.from_pylist(ROWS), one, write_page_index=True, row_group_size=1, store_schema=False, compression="zstd"
    )
    assert len(read(one)[0]) == 3
    pq.write_table(pa.table({}), one)
    assert "holds no records" in refused(one).problem
    packed = tmp_path / "x.parquet.gz"
    packed.write_bytes(gzip.compress(one.read_bytes()))
    assert "inside a compressed file" in refused(packed).problem


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (pa.array([1.0, 2.0]), "a floating-point number"),
        (pa.array([True, False]), "true or false"),
        (pa.array([1, 2]).cast(pa.decimal128(20, 0)), "Decimal"),
        (pa.array([1, 2], pa.timestamp("us", "Europe/Berlin")), "datetime"),
        (pa.array([b"1" * 16, b"2" * 16], pa.uuid()), "UUID"),
    ],
)
def test_ids_of_other_types_are_refused_with_what_helps(ids: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": ids, "instruction": ["Q", "Q"], "output": ["A", "B"]}), path)
    error = refused(path)
    assert f"(data.id_field) is {kind}, not text or a whole number" in error.problem
    assert "write id as text" in error.fix


def test_columns_of_arrow_s_many_kinds_of_text(tmp_path: Path) -> None:
    texts = {name: pa.array([str(row[name]) for row in ROWS]) for name in ROWS[0]}
    path = tmp_path / "x.parquet"
    kinds = (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
    for kind in kinds:
        columns = {name: column.cast(kind) for name, column in texts.items()}
        when = pa.array([0, 1, 2], pa.timestamp("ns", "Mars/Olympus"))
        pq.write_table(pa.table({**columns, "input": pa.nulls(3), "when": when}), path)
        assert read(path)[0] == ["r0", "r1", "r2"]


def test_a_folder_of_another_split_alone_says_so(tmp_path: Path) -> None:
    put(tmp_path / "test.jsonl", *ROWS)
    assert "the files read are of the split test" in "\n".join(read(tmp_path)[1].notes())
    assert not read(tmp_path, split="test")[1].notes()
    put(tmp_path / "more.jsonl", {**ROWS[0], "id": "x"})
    assert read(tmp_path)[1].other_split is None


def test_the_hub_s_cache(tmp_path: Path) -> None:
    for revision in ("abc", "def"):
        blob = put(tmp_path / "blobs" / revision, *ROWS)
        link = tmp_path / "snapshots" / revision / "train.jsonl"
        link.parent.mkdir(parents=True)
        link.symlink_to(blob)
    assert len(read(tmp_path / "snapshots" / "abc")[0]) == 3
    error = refused(tmp_path)
    assert "a cache of the hub with 2 revisions" in error.problem and "snapshots/def" in error.fix
    (tmp_path / "snapshots" / "def" / "train.jsonl").unlink()
    assert len(read(tmp_path)[0]) == 3


def test_what_lies_beside_records_is_skipped_and_named(tmp_path: Path) -> None:
    for name in ("croissant.json", "tokenizer.json", "trainer_state.json"):
        (tmp_path / name).write_text("{}")
    assert "skipped: croissant.json (not records, judging by its name)" in refused(tmp_path).problem
    put(tmp_path / "x.jsonl", *ROWS)
    found, reading = read(tmp_path)
    assert len(found) == 3 and len(reading.skipped) == 3


def test_a_conversation_of_which_nothing_is_to_be_learned(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "weight": 0}]
    path = put(tmp_path / "x.jsonl", {"id": "a", "messages": turns})
    assert "every message of the assistant has weight 0" in refused(path, CHAT).problem
