"""Inputs from public bug reports about training data: each is read correctly, or refused."""

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
    assert f"{name}:{line}: there are no instruction" in refused(broken).problem


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


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_conversation_as_columns_of_parquet(tmp_path: Path) -> None:
    """Lists of structs have every field in every message, null where a message has none (Hub viewers' Parquet)."""
    turns = [{"role": "user", "content": "Q", "tool_calls": None}, {"role": "assistant", "content": "A", "name": None}]
    path = parquet(tmp_path / "x.parquet", id=["a"], messages=[turns])
    assert read(path, CHAT)[0] == [("a", {"messages": TURNS})]
    large = pa.array([turns], pa.large_list(pa.struct([("role", pa.large_string()), ("content", pa.string_view())])))
    assert read(parquet(tmp_path / "y.parquet", id=["a"], messages=large), CHAT)[0] == [("a", {"messages": TURNS})]
    coded = pa.array(["Q"]).dictionary_encode()
    path = parquet(tmp_path / "z.parquet", id=pa.array([7], pa.int8()), instruction=coded, output=["A"])
    assert read(path)[0] == [("7", TAKEN)]


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl"])
def test_ids_that_pandas_made_to_numbers_with_a_point_are_refused(name: str, tmp_path: Path) -> None:
    """A column of whole numbers with one missing becomes 1.0, 2.0, NaN: nobody would ask for record '1.0'."""
    rows = [{**ROW, "id": 1.0}, {**ROW, "id": float("nan")}]
    path = tmp_path / name
    if name == "x.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        put(tmp_path, name, *rows)
    problem = refused(path).problem
    assert f"{name}:1: field 'id' (data.id_field) is a floating-point number, not text or a whole number" in problem


def test_the_index_column_of_pandas_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("Unnamed: 0,id,instruction,output\n0,a,Q,A\n")
    assert read(tmp_path / "x.csv")[0] == [("a", TAKEN)]
    (tmp_path / "y.csv").write_text(",id,instruction,output\n0,a,Q,A\n")
    assert read(tmp_path / "y.csv")[0] == [("a", TAKEN)]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "cp1252"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv"])
def test_text_in_another_encoding_is_refused(name: str, encoding: str, tmp_path: Path) -> None:
    """Windows' Notepad and PowerShell's `>` write UTF-16; Excel writes cp1252."""
    row = {**ROW, "output": "Größe"}
    text = "id,instruction,output\na,Q,Größe\n" if name == "x.csv" else json.dumps([row], ensure_ascii=False)
    if name == "x.jsonl":
        text = text[1:-1] + "\n"
    (tmp_path / name).write_bytes(text.encode(encoding))
    problem = refused(tmp_path / name).problem
    assert "UTF-8" in problem or "not JSON" in problem


def test_numbers_dates_and_flags_are_not_text(tmp_path: Path) -> None:
    for value, words in ((5, "a number"), (True, "true or false"), (["A"], "a list"), ({"a": 1}, "an object")):
        path = put(tmp_path, "x.jsonl", {**ROW, "output": value})
        assert f"x.jsonl:1: field 'output' is {words}, not text" in refused(path).problem
    when = pa.array([0], pa.timestamp("us"))
    assert "not text" in refused(parquet(tmp_path / "x.parquet", id=["a"], instruction=["Q"], output=when)).problem


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (
            [{"from": "gpt", "value": "A"}, {"from": "human", "value": "Q"}],
            "role assistant, with no question before it",
        ),
        ([{"from": "human", "value": "Q"}], "nothing to learn"),
        ([{"from": "human", "value": "Q"}, {"from": "gpt", "value": ""}], "message 2: field 'value' is empty"),
        ([{"from": "human", "value": "Q"}, {"from": "gpt", "value": None}], "message 2: field 'value' is null"),
        ([{"from": "human", "value": "Q"}, {"from": "gpt"}], "message 2: field 'content' is missing"),
        ([{"human": "Q"}, {"gpt": "A"}], "message 1: field 'role' is missing"),
        ([["human", "Q"], ["gpt", "A"]], "message 1 is a list, not an object"),
        ("Human: Q Assistant: A", "messages is text, not a list"),
        ([], "messages is empty"),
        ({"role": "user"}, "messages is an object, not a list"),
    ],
)
def test_conversations_as_sharegpt_dumps_have_them_broken(messages: object, words: str, tmp_path: Path) -> None:
    path = put(tmp_path, "x.json", {"id": "a", "conversations": messages})
    assert words in refused(path, CHAT).problem


@pytest.mark.parametrize("role", ["Human", "GPT", " user ", "chatgpt", "bing", "bard", "User", "ASSISTANT"])
def test_names_of_roles_are_known_or_asked_for(role: str, tmp_path: Path) -> None:
    asked = role.strip().lower() in ("human", "user")
    turns = [{"from": role if asked else "human", "value": "Q"}, {"from": "gpt" if asked else role, "value": "A"}]
    path = put(tmp_path, "x.json", {"id": "a", "conversations": turns})
    if role in ("bing", "bard"):
        assert "role is not one of" in refused(path, CHAT).problem
        assert read(path, CHAT, roles={"assistant": [role]})[0] == [("a", {"messages": TURNS})]
    else:
        assert read(path, CHAT)[0] == [("a", {"messages": TURNS})]


def test_dpo_and_kto_rows_are_not_taken_for_something_else(tmp_path: Path) -> None:
    preference = {"id": "a", "prompt": "Q", "chosen": "A", "rejected": "B"}
    assert "its columns: id, prompt, chosen, rejected" in refused(put(tmp_path, "x.jsonl", preference)).problem
    turns = {"id": "a", "chosen": TURNS, "rejected": TURNS}
    assert "its columns: id, chosen, rejected" in refused(put(tmp_path, "y.jsonl", turns), CHAT).problem


def test_a_table_of_another_delimiter_or_quotes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id;instruction;output\na;Q;A\n")
    assert "its columns are separated by ';'" in refused(tmp_path / "x.csv").problem
    (tmp_path / "y.csv").write_text('id,instruction,output\na,"Q,A\n')
    assert "y.csv, line 2: not ','-separated" in refused(tmp_path / "y.csv").problem
    (tmp_path / "z.csv").write_text('id,instruction,output\na,"Q" x,A\n')
    assert "z.csv, line 2" in refused(tmp_path / "z.csv").problem


def test_python_s_own_spelling_of_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(str(ROW) + "\n")
    assert (
        "x.jsonl:1: not JSON: Expecting property name enclosed in double quotes"
        in refused(tmp_path / "x.jsonl").problem
    )
    (tmp_path / "y.jsonl").write_text(json.dumps(ROW) + ",\n")
    assert "y.jsonl:1: not JSON: Extra data" in refused(tmp_path / "y.jsonl").problem
    (tmp_path / "z.jsonl").write_text(json.dumps(ROW, indent=1))
    assert "z.jsonl:1: not JSON" in refused(tmp_path / "z.jsonl").problem
