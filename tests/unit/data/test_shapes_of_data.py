"""Real-world data: columns with other names, folders, archives, and misleading files."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.read import RejectFile, read_records
from s3t_ray.data.readers.reading import Reading
from s3t_ray.data.readers.remote_files import _fetch_http
from s3t_ray.errors import DataError

CHAT = Task(prompt="chat_template")
TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
ROW = {"id": "a", "instruction": "Q", "input": "", "output": "A"}
TAKEN = {"instruction": "Q", "input": "", "output": "A"}


def read(path: Path | str, task: Task | None = None, **data: Any) -> tuple[list[Any], Reading]:
    reading = Reading()
    records = read_records(Data(path=str(path), **data), task or Task(), reading=reading)
    return [(record.id, json.loads(record.content)) for record in records], reading


def put(folder: Path, name: str, *rows: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(path: Path | str, task: Task | None = None, **data: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path, task, **data)
    return caught.value


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"prompt": "Q", "completion": "A"}, "instruction: prompt, output: completion"),
        ({"question": "Q", "answer": "A"}, "instruction: question, output: answer"),
        ({"query": "Q", "response": "A"}, "instruction: query, output: response"),
        ({"instruction": "Q", "response": "A", "category": "x"}, "instruction: instruction, output: response"),
        ({"input": "Q", "output": "A"}, "instruction: input, output: output"),
    ],
)
def test_pairs_of_columns_are_recognised_and_said(row: dict[str, str], shape: str, tmp_path: Path) -> None:
    records, reading = read(put(tmp_path, "x.jsonl", {"id": "a", **row}))
    assert records == [("a", TAKEN)]
    assert reading.notes() == [f"1 row taken as {shape}"]


def test_a_context_is_the_input(tmp_path: Path) -> None:
    dolly = {"id": "a", "instruction": "Q", "context": "C", "response": "A", "category": "qa"}
    assert read(put(tmp_path, "x.jsonl", dolly))[0] == [("a", {**TAKEN, "input": "C"})]


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, TURNS[1]]},
        {"messages": [{"role": "system", "content": ""}, *TURNS]},
        {"messages": json.dumps(TURNS)},
        {"messages": TURNS, "tools": "[]", "images": [], "system": ""},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"conversation": TURNS},
    ],
)
def test_conversations_in_many_shapes_are_one(row: dict[str, Any], tmp_path: Path) -> None:
    assert read(put(tmp_path, "x.jsonl", {"id": "a", **row}), CHAT)[0] == [("a", {"messages": TURNS})]


def test_what_changes_a_conversation_s_meaning_is_kept(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "w", "arguments": '{"city": "Rome"}'}}
    row = {
        "id": "a",
        "system": "S",
        "tools": json.dumps([{"function": {"name": "w"}}]),
        "messages": [
            TURNS[0],
            {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
            {"role": "tool", "content": "18", "tool_call_id": "1", "name": "w"},
            {"role": "assistant", "content": "18.", "thinking": "so", "tool_calls": None},
        ],
    }
    ((_, content),) = read(put(tmp_path, "x.jsonl", row), CHAT)[0]
    parsed = {**call, "function": {"name": "w", "arguments": {"city": "Rome"}}}
    assert content == {
        "tools": [{"function": {"name": "w"}}],
        "messages": [
            {"role": "system", "content": "S"},
            TURNS[0],
            {"role": "assistant", "content": "", "tool_calls": [parsed], "weight": 0},
            {"role": "tool", "content": "18", "name": "w", "tool_call_id": "1"},
            {"role": "assistant", "content": "18.", "reasoning_content": "so"},
        ],
    }


def test_history_and_system_beside_an_instruction(tmp_path: Path) -> None:
    path = put(tmp_path, "x.jsonl", {**ROW, "system": "S", "history": [["q", "a"]]})
    (_, content), *_ = read(path, CHAT)[0]
    assert [message["content"] for message in content["messages"]] == ["S", "q", "a", "Q", "A"]
    assert "set task.prompt: chat_template" in refused(path).fix
    empty = put(tmp_path, "y.jsonl", {**ROW, "system": "", "history": [], "tools": None})
    assert read(empty)[0] == [("a", TAKEN)]


def calling(arguments: str) -> dict[str, Any]:
    return {**TURNS[1], "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": TURNS, "images": ["x.png"]}, "field 'images' is not empty"),
        ({**ROW, "audio": {"path": "x"}}, "field 'audio' is not empty"),
        ({"messages": [{**TURNS[0], "function_call": {"name": "f"}}, TURNS[1]]}, "'function_call' cannot be trained"),
        ({"messages": [TURNS[0], {**TURNS[1], "weight": 0.5}]}, "neither 0 nor 1"),
        ({"messages": [TURNS[0], {**TURNS[1], "weight": 0}]}, "nothing to learn"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, TURNS[1]]}, "a part that is not text"),
        ({"messages": TURNS, "tools": "{"}, "not JSON"),
        ({"messages": TURNS, "tools": [5]}, "not a list of objects"),
        ({"messages": [*TURNS[:1], {**TURNS[1], "tool_calls": [{"function": {}}]}]}, "without a function's name"),
        ({"messages": [TURNS[0], calling('{"a": "\\ud800"}')]}, "half a surrogate pair"),
        ({"messages": [TURNS[0], calling('{"a": NaN}')]}, "a number that is not finite, which JSON does not support"),
        ({"messages": [TURNS[0], calling("[" * 300 + "]" * 300)]}, "'tool_calls' is nested more than 100 deep"),
        ({"messages": [TURNS[0], calling('{"a": 1, "a": 2}')]}, "field 'a' is repeated"),
        (
            {"messages": TURNS, "tools": [{"a": float("inf")}]},
            "a number that is not finite, which JSON does not support",
        ),
        (
            {"messages": TURNS, "tools": '[{"a": ' + "[" * 900 + "]" * 900 + "}]"},
            "'tools' is nested more than 100 deep",
        ),
        ({"messages": [{"role": "system", "content": "S"}, *TURNS], "system": "T"}, "and a field 'system'"),
        ({"messages": [{"role": "narrator", "content": "x"}, *TURNS]}, "role is not one of"),
    ],
)
def test_what_cannot_be_kept_is_refused(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    error = refused(put(tmp_path, "x.jsonl", {"id": "a", **row}), CHAT)
    assert words in error.problem and "x.jsonl:1: " in error.problem and "(id 'a')" in error.problem


def test_the_config_names_columns_and_roles(tmp_path: Path) -> None:
    path = put(tmp_path, "x.jsonl", {"id": 1, "q": "Q", "a": "A", "text": "not this", "instruction": "nor this"})
    assert read(path, columns={"instruction": "q", "output": "a"})[0] == [("1", TAKEN)]
    missing = refused(path, columns={"instruction": "q", "output": "b"})
    assert "field 'output' is missing" in missing.problem
    said = put(tmp_path, "y.jsonl", {"id": 1, "m": [{"role": "boss", "content": "Q"}, {"role": "AI", "content": "A"}]})
    roles = {"user": ["boss"], "assistant": ["AI"]}
    assert read(said, CHAT, columns={"messages": "m"}, roles=roles)[0] == [("1", {"messages": TURNS})]
    assert "data.roles" in refused(said, CHAT, columns={"messages": "m"}).fix


def test_columns_of_no_known_name_are_listed_with_what_to_do(tmp_path: Path) -> None:
    error = refused(put(tmp_path, "x.jsonl", {"id": 1, "frage": "Q", "antwort": "A"}))
    assert "its columns: id, frage, antwort" in error.problem
    assert "columns: {instruction: question, output: answer}" in error.fix


def test_messages_under_another_prompt_name_the_setting(tmp_path: Path) -> None:
    error = refused(put(tmp_path, "x.jsonl", {"id": 1, "conversations": [{"from": "human", "value": "Q"}]}))
    assert "set task.prompt: chat_template" in error.fix


def test_ids_are_derived_where_the_data_has_none(tmp_path: Path) -> None:
    bare = {name: value for name, value in ROW.items() if name != "id"}
    path = put(tmp_path, "x.json", bare, {**bare, "output": "B"}, bare)
    records, reading = read(path)
    assert [identity[:2] for identity, _ in records] == ["c-", "c-"]
    assert reading.repeated == 1 and any("ids are derived" in note for note in reading.notes())
    assert "data.id_field: null" in refused(path, id_field="id").fix
    assert "repeats the content" in refused(path, id_field=None).problem
    mixed = put(tmp_path, "y.jsonl", ROW, bare)
    assert "field 'id'" in refused(mixed).problem, "an id in the first row is asked of all"
    late = put(tmp_path, "z.jsonl", bare, {**ROW, "output": "B"})
    assert "z.jsonl:2: field 'id' is present, but the first row has none" in refused(late).problem
    assert [identity[:2] for identity, _ in read(late, id_field=None)[0]] == ["c-", "c-"]


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('\ufeffid,instruction,input,output\na,"Q, or\nnot",,A\nb,Q\n', encoding="utf-8")
    error = refused(path)
    assert "x.csv:4: 2 cells for 4 columns" in error.problem
    path.write_text('id,instruction,input,output\na,"Q, or\nnot",,A\n')
    assert read(path)[0] == [("a", {**TAKEN, "instruction": "Q, or\nnot"})]
    (tmp_path / "x.tsv").write_text("id\tinstruction\toutput\na\tQ\tA\n")
    assert read(tmp_path / "x.tsv")[0] == [("a", TAKEN)]
    path.write_text("id,id\n1,2\n")
    assert "names the column 'id' twice" in refused(path).problem
    path.write_text("id,text,label\n1,T,0\n")
    classes = Task(kind="classification", labels=("bad", "good"))
    assert read(path, classes)[0] == [("1", {"text": "T", "label": "bad"})]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv"])
def test_compressed_files(name: str, tmp_path: Path) -> None:
    text = "id,instruction,output\na,Q,A\n" if name == "x.csv" else json.dumps(ROW) + "\n"
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    with pa.output_stream(str(tmp_path / f"{name}.zst"), compression="zstd") as stream:
        stream.write(text.encode())
    for ending in ("gz", "zst"):
        assert read(tmp_path / f"{name}.{ending}")[0] == [("a", TAKEN)]
        cut = tmp_path / f"cut-{name}.{ending}"
        cut.write_bytes((tmp_path / f"{name}.{ending}").read_bytes()[:-9])
        assert "cannot be read" in refused(cut).problem
    (tmp_path / "plain.jsonl.gz").write_text(text)
    assert "cannot be read" in refused(tmp_path / "plain.jsonl.gz").problem


def test_arrays_and_wrappers_whatever_the_ending(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps([ROW]))
    (tmp_path / "y.json").write_text(json.dumps({"version": 1, "data": [ROW], "more": {"data": []}}, indent=1))
    (tmp_path / "z.json").write_text(json.dumps({"data": [ROW]}))
    (tmp_path / "one.json").write_text(json.dumps(ROW, indent=2))
    for name in ("x.jsonl", "y.json", "z.json", "one.json"):
        assert read(tmp_path / name)[0] == [("a", TAKEN)], name
    (tmp_path / "y.json").write_text('{"data": [' + json.dumps(ROW))
    assert "y.json" in refused(tmp_path / "y.json").problem


def test_a_folder_says_what_it_reads_and_what_it_skips(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", ROW)
    (tmp_path / "c.csv").write_text("id,instruction,output\nb,Q,A\n")
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(json.dumps({**ROW, "id": "c"}).encode()))
    (tmp_path / "README.md").write_text("x")
    put(tmp_path, "dataset_info.json", {"mine": {"file_name": "a.jsonl"}})
    records, reading = read(tmp_path)
    assert [identity for identity, _ in records] == ["a", "b", "c"]
    assert reading.skipped == ["README.md (not a data file)", "dataset_info.json (not records, judging by its name)"]


def test_splits_are_distinguished(tmp_path: Path) -> None:
    for name in ("data/train-00000-of-00001", "data/test-00000-of-00001", "data/validation"):
        put(tmp_path, f"{name}.jsonl", {**ROW, "id": name})
    assert [identity for identity, _ in read(tmp_path)[0]] == ["data/train-00000-of-00001"]
    assert [identity for identity, _ in read(tmp_path, split="val")[0]] == ["data/validation"]
    assert "holds the splits test, train, validation" in refused(tmp_path, split="other").problem
    for name in ("contest", "latest", "trainer"):
        put(tmp_path / "plain", f"{name}.jsonl", {**ROW, "id": name})
    assert len(read(tmp_path / "plain")[0]) == 3, "words, not pieces of words"


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_that_are_not_used_are_not_read(tmp_path: Path) -> None:
    odd = pa.array([2**62], pa.timestamp("us"))
    path = parquet(tmp_path / "x.parquet", id=["a"], instruction=["Q"], output=["A"], at=odd)
    assert read(path)[0] == [("a", TAKEN)]
    used = parquet(tmp_path / "y.parquet", id=odd, instruction=["Q"], output=["A"])
    assert "y.parquet:1: field 'id' (timestamp[us]) cannot be read" in refused(used).problem
    raw = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    bad = parquet(tmp_path / "z.parquet", id=["a"], instruction=raw, output=["A"])
    assert "z.parquet:1: field 'instruction' (string) cannot be read: UnicodeDecodeError" in refused(bad).problem


def test_class_names_of_a_dataset_are_matched_by_name(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    made = Dataset.from_dict({"id": ["a", "b"], "text": ["T", "U"], "label": [0, 1]}, features=features)
    made.save_to_disk(str(tmp_path / "saved"))
    made.to_parquet(str(tmp_path / "x.parquet"))
    turned = Task(kind="classification", labels=("pos", "neg"))
    for path in (tmp_path / "saved", tmp_path / "x.parquet"):
        assert [content["label"] for _, content in read(path, turned)[0]] == ["neg", "pos"]
    others = refused(tmp_path / "saved", Task(kind="classification", labels=("good", "bad")))
    assert "label is not one of task.labels" in others.problem


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/cut.jsonl":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"ff\r\nno more")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    def handler(*args: Any) -> _Handler:
        return _Handler(*args, directory=str(tmp_path))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_file_of_a_web_server(server: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROW).encode()))
    assert read(f"{server}/x.jsonl.gz?download=1")[0] == [("a", TAKEN)]
    assert "404" in refused(f"{server}/y.jsonl").problem
    assert "is a web page, not data" in refused(f"{server}/?download=1").problem
    (tmp_path / "x.txt").write_text(json.dumps(ROW))
    assert "does not determine its format" in refused(f"{server}/x.txt?download=1").problem
    assert "/cut.jsonl cannot be read: IncompleteRead" in refused(f"{server}/cut.jsonl").problem
    assert "can't contain control characters" in refused(f"{server}/a b.jsonl").problem


def test_a_full_disk_is_not_the_network_s_fault(server: str, tmp_path: Path) -> None:
    put(tmp_path, "x.jsonl", ROW)
    with pytest.raises(DataError, match=r"x\.jsonl does not fit into .*: No space left") as caught:
        _fetch_http(f"{server}/x.jsonl", Path("/dev/full"))
    assert "TMPDIR" in caught.value.fix


def test_addresses_that_nobody_reads(tmp_path: Path) -> None:
    assert "ftp:// is not supported" in refused("ftp://host/x.jsonl").problem
    put(tmp_path, "x.jsonl", ROW)
    assert read(f"file://{tmp_path}/x.jsonl")[0] == [("a", TAKEN)]


def test_rejects_keep_what_came_in(tmp_path: Path) -> None:
    path = put(tmp_path, "x.jsonl", ROW, {"id": "b", "messages": TURNS})
    with RejectFile(tmp_path / "r.jsonl") as rejects:
        data = Data(path=str(path), on_malformed="set_aside")
        assert [record.id for record in read_records(data, Task(), rejects)] == ["a"]
    (line,) = (tmp_path / "r.jsonl").read_text().splitlines()
    assert json.loads(line)["row"]["id"] == "b"
