"""Files, folders, globs and datasets into records; malformed rows refused or set aside."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers import formats
from s3t_ray.data.readers.read import RejectFile, drop_rejects, read_holdout, read_records
from s3t_ray.errors import DataError, StoreError

Lines = Callable[..., Path]
ROWS = [{"id": f"r{number}", "text": f"text {number}"} for number in range(5)]


def ids(path: object, **fields: object) -> list[str]:
    return [record.id for record in read_records(Data.model_validate({"path": str(path), **fields}), Task())]


def as_lines() -> list[str]:
    return [json.dumps(row) for row in ROWS]


def test_every_format_gives_the_same_records(lines: Lines, tmp_path: Path) -> None:
    lines(*as_lines(), "", name="a.jsonl")
    lines(*as_lines(), name="lines.json")
    (tmp_path / "array.json").write_text(json.dumps(ROWS, indent=2))
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.jsonl").read_bytes())
    (tmp_path / "crlf.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes().replace(b"\n", b"\r\n"))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    lines(*as_lines(), name="noending")
    expected = [row["id"] for row in ROWS]
    for name in ("a.jsonl", "lines.json", "array.json", "bom.jsonl", "crlf.jsonl", "a.parquet"):
        assert ids(tmp_path / name) == expected, name
    assert ids(tmp_path / "noending", format="jsonl") == expected


def test_folders_and_globs_go_by_name(lines: Lines, tmp_path: Path) -> None:
    (tmp_path / "in" / ".hidden").mkdir(parents=True)
    for name in ("in/b.jsonl", "in/a.jsonl", "in/.hidden/c.jsonl", "in/notes.md"):
        lines(json.dumps({"id": name, "text": "t"}), name=name)
    assert ids(tmp_path / "in") == ["in/a.jsonl", "in/b.jsonl"]
    assert ids(tmp_path / "in" / "[b]*.jsonl") == ["in/b.jsonl"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.jsonl", "there is no such file"),
        ("/no/where", "there is no such file"),
        ("*.jsonl", "no file matches"),
        ("empty", "contains no"),
        ("data.dat", "does not determine its format"),
        ("nothing.jsonl", "holds no records"),
        ("nothing.json", "holds no records"),
        ("broken.parquet", "not a complete Parquet file"),
        ("broken.json", "element 2 is not JSON"),
        ("latin.json", "not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named(
    path: str, words: str, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "broken.json").write_text('[{"id": "a", "text": "t"}, {"id": ')
    (tmp_path / "latin.json").write_bytes('[{"id": "ä", "text": "t"}]'.encode("latin-1"))
    (tmp_path / "nothing.json").write_text("[]")
    for name in ("data.dat", "nothing.txt"):
        lines("x", name=name)
    if path == "nothing.jsonl":
        lines(name=path)
    with pytest.raises(DataError) as caught:
        ids(path)
    assert words in caught.value.problem
    assert caught.value.fix


def test_refuse_names_the_first_twenty_lines_and_counts_all(lines: Lines) -> None:
    path = lines(*as_lines(), *["{"] * 15, *['{"id": 1}'] * 10, "[1]", '"x"')
    with pytest.raises(DataError) as caught:
        ids(path)
    problem = caught.value.problem
    assert problem.startswith("27 malformed rows")
    assert f"{path}:6: not JSON: Expecting property name" in problem
    assert f"{path}:21: there are no" in problem
    assert problem.count("records.jsonl:") == 20
    assert "and 7 more" in problem
    assert "set_aside" in caught.value.fix


def test_bytes_that_are_no_text_and_numbers_without_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b'{"id": "\xff", "text": "t"}\n{"id": ' + b"9" * 5000 + b', "text": "t"}\n' + b"[" * 100_000 + b"\n7\n"
    )
    with pytest.raises(DataError) as caught:
        ids(path)
    for words in (
        ":1: not UTF-8 (byte 8",
        ":2: field 'id' (data.id_field) is a number with too many digits",
        ":3: not JSON",
        ":4: not an object",
    ):
        assert words in caught.value.problem


@pytest.mark.parametrize("name", ["x.jsonl", "array.json", "object.json"])
def test_a_field_that_stands_twice_is_no_row(name: str, tmp_path: Path) -> None:
    row = '{"id": "a", "text": "t", "id": "b"}'
    text = {"array.json": f"[{row}]", "object.json": row.replace(",", ",\n")}.get(name, row)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="'id' is repeated"):
        ids(tmp_path / name)


def test_a_wrapper_whose_last_member_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"data": [\n{"id": "a", "text": "t"}], "version": 2}')
    assert ids(tmp_path / "x.json") == ["a"]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["t"]), pa.array(["u"])], names=["id", "text", "text"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="has two columns 'text'"):
        ids(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv.gz"])
def test_a_line_without_end_does_not_fill_memory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = "id,text\n" if "csv" in name else "\n"
    (tmp_path / name).write_bytes(gzip.compress(first.encode() + b"0" * (5 << 20)))
    monkeypatch.setattr(formats, "LONGEST", 1 << 20)
    with pytest.raises(DataError, match=r"gz, line 2: longer than 1 MiB"):
        ids(tmp_path / name)


def test_set_aside_keeps_rows_with_their_reason(lines: Lines, tmp_path: Path) -> None:
    data = Data(path=str(lines(*as_lines(), '{"id": "bad", "text": 5}', "{")), on_malformed="set_aside")
    with RejectFile(tmp_path / "out" / "rejects.jsonl") as rejects:
        assert len(list(read_records(data, Task(), rejects))) == 5
    assert rejects.count == 2
    first, second = [json.loads(line) for line in rejects.path.read_text().splitlines()]
    assert (first["line"], first["row"], first["reason"]) == (
        6,
        {"id": "bad", "text": 5},
        "field 'text' is a number, not text",
    )
    assert (second["line"], second["row"]) == (7, None)
    with pytest.raises(DataError, match="needs a file for the rows"):
        list(read_records(data, Task()))


def test_a_full_disk_under_the_reject_file_is_said_at_its_end(lines: Lines) -> None:
    data = Data(path=str(lines(*as_lines(), "{")), on_malformed="set_aside")
    with pytest.raises(StoreError, match="/dev/full cannot be written: No space left"):
        with RejectFile(Path("/dev/full")) as rejects:
            assert len(list(read_records(data, Task(), rejects))) == 5


def test_no_reject_file_appears_without_a_reject(lines: Lines, tmp_path: Path) -> None:
    with RejectFile(tmp_path / "rejects.jsonl") as rejects:
        list(read_records(Data(path=str(lines(*as_lines())), on_malformed="set_aside"), Task(), rejects))
    assert not rejects.path.exists()


def test_all_set_aside_is_no_data(lines: Lines, tmp_path: Path) -> None:
    data = Data(path=str(lines("{")), on_malformed="set_aside")
    with RejectFile(tmp_path / "rejects.jsonl") as rejects, pytest.raises(DataError, match=r"no records \(1 malformed"):
        list(read_records(data, Task(), rejects))


def test_repeated_contents_need_ids_of_their_own(lines: Lines, tmp_path: Path) -> None:
    path = lines('{"text": "a"}', '{"text": "b"}', '{"text": "a", "more": 1}')
    with pytest.raises(DataError, match=f"{path}:3: repeats the content of an earlier row"):
        ids(path, id_field=None)
    data = Data(path=str(path), id_field=None, on_malformed="set_aside")
    with RejectFile(tmp_path / "rejects.jsonl") as rejects:
        assert len(list(read_records(data, Task(), rejects))) == 2
    # The text stands in the run already; a copy here would outlive its deletion.
    assert json.loads(rejects.path.read_text())["row"] is None


def test_ids_of_the_datas_own_are_left_to_the_ledger(lines: Lines) -> None:
    assert ids(lines('{"id": "a", "text": "t"}', '{"id": "a", "text": "t"}')) == ["a", "a"]


def test_deleted_people_leave_the_reject_file(lines: Lines, tmp_path: Path) -> None:
    data = Data(path=str(lines('{"id": "x", "text": "fine"}')), subject_field="who")
    rows: list[object] = [
        {"id": "a", "who": "Ada"},
        {"id": 2},
        {"who": "Bob"},
        {"id": [1]},
        None,
        {"id": "c", "who": "Ada"},
    ]
    rejects = lines(
        *[json.dumps({"source": "s", "line": 1, "reason": "r", "row": row}) for row in rows], name="rejects.jsonl"
    )
    kept = tmp_path / "kept.jsonl"
    dropped = drop_rejects(rejects, kept, data, lambda identity, subject: subject == "Ada" or identity == "2")
    assert dropped == 5
    assert [json.loads(line)["row"] for line in kept.read_text().splitlines()] == [{"who": "Bob"}]
    rejects.write_text("{")
    assert drop_rejects(rejects, kept, data, lambda identity, subject: False) == 1, "ingest never wrote such a line"
    rejects.unlink()
    with pytest.raises(StoreError, match="cannot be read or copied"):
        drop_rejects(rejects, kept, data, lambda identity, subject: False)


def test_holdout_records_from_a_file_of_their_own(lines: Lines) -> None:
    apart = lines('{"id": "h", "text": "held out"}', name="holdout.jsonl")
    data = Data(path=str(lines(*as_lines())), holdout_path=str(apart))
    assert [record.id for record in read_holdout(data, Task())] == ["h"]
    assert list(read_holdout(Data(path=data.path), Task())) == []


def test_hugging_face_datasets(lines: Lines, tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    DatasetDict({"test": Dataset.from_list(ROWS[:2])}).save_to_disk(tmp_path / "splits")
    (tmp_path / "folder").mkdir()
    lines(*as_lines(), name="folder/train.jsonl")
    assert ids(tmp_path / "saved") == [row["id"] for row in ROWS]
    assert ids(tmp_path / "splits", split="test") == ["r0", "r1"]
    assert ids(tmp_path / "folder", format="huggingface") == [row["id"] for row in ROWS]
    with pytest.raises(DataError, match=r"data\.split = train: .* has test"):
        ids(tmp_path / "splits")


def test_a_hub_name_that_the_hub_does_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[object, ...]] = []

    def no_network(name: str, subset: str | None, split: str, streaming: bool) -> None:
        asked.append((name, subset, split, streaming))
        raise ConnectionError("no route to host")

    monkeypatch.setattr("datasets.load_dataset", no_network)
    with pytest.raises(DataError, match="cannot be read: no route to host"):
        ids("owner/records", subset="small")
    assert asked == [("owner/records", "small", "train", True)]
