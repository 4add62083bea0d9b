"""Whatever bytes a file holds: records, or one of our errors, and never a record that says other than the file.

`S3T_FUZZ=30 pytest tests/unit/data/test_fuzz_readers.py` tries 30 times as many.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.read import RejectFile, read_records
from s3t_ray.errors import DataError

MANY = settings(max_examples=150 * int(os.environ.get("S3T_FUZZ", "1")))
TASKS = (Task(), Task(prompt="chat_template"), Task(kind="classification", labels=("a", "b")))
ROWS: list[dict[str, Any]] = [
    {"id": "a", "instruction": "Q", "input": "", "output": "A"},
    {"id": 2, "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
    {"id": "c", "text": "T", "label": "a"},
    {"id": "d", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "tools": "[]"},
]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
SAMPLES = {
    ".jsonl": TEXT,
    ".json": json.dumps(ROWS).encode(),
    ".csv": b'id,instruction,output\na,"Q, ""q""",A\nb,"Q\nr",B\n',
    ".tsv": b"id\ttext\tlabel\n1\tT\ta\n",
    ".jsonl.gz": gzip.compress(TEXT, mtime=0),
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "type", "text", "weight", "tool_calls", "function"])
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
names = st.sampled_from(
    [*{name for row in ROWS for name in row}, "system", "history", "prompt", "completion", "images"]
)
rows = st.dictionaries(names, values, max_size=6) | values


def read(path: Path, task: Task) -> list[Any] | None:
    """The records of the file, malformed rows set aside; None: refused."""
    with RejectFile(path.with_name("rejects")) as rejects:
        data = Data(path=str(path), on_malformed="set_aside")
        try:
            return list(read_records(data, task, rejects))
        except DataError as error:
            assert error.problem and error.fix
            return None


@st.composite
def mutated(draw: st.DrawFn, sample: bytes) -> bytes:
    """`sample` with a few pieces replaced, cut out, doubled or cut off."""
    data = bytearray(sample)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 6))
        data[at : at + length] = draw(st.binary(max_size=6) | st.sampled_from([b'"', b"{", b"[", b"\n", b"\x00", b","]))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@pytest.mark.parametrize("ending", SAMPLES)
@MANY
@given(data=st.data())
def test_mutated_files(ending: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{ending}"
        path.write_bytes(data.draw(mutated(SAMPLES[ending])))
        read(path, data.draw(st.sampled_from(TASKS)))


@pytest.mark.parametrize("ending", [*SAMPLES, ".parquet", ".jsonl.zst"])
@MANY
@given(content=st.binary(max_size=60))
def test_any_bytes(ending: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{ending}"
        path.write_bytes(content)
        read(path, TASKS[0])


@MANY
@given(given_rows=st.lists(rows, min_size=1, max_size=4), task=st.sampled_from(TASKS), lines=st.booleans())
def test_rows_of_any_shape(given_rows: list[Any], task: Task, lines: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.jsonl" if lines else "x.json")
        text = "".join(json.dumps(row) + "\n" for row in given_rows) if lines else json.dumps(given_rows)
        path.write_text(text)
        for record in read(path, task) or ():
            record.content.encode()
            assert json.loads(record.content) and record.id.strip()


@MANY
@given(said=st.lists(st.text(min_size=1, max_size=20).filter(str.strip), min_size=2, max_size=2))
def test_text_comes_through_every_format_as_it_was(said: list[str]) -> None:
    row = {"id": "a", "instruction": said[0], "output": said[1]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8", newline="")
        (folder / "x.json").write_text(json.dumps([row], indent=1, ensure_ascii=False), encoding="utf-8", newline="")
        cells = ",".join('"' + text.replace('"', '""') + '"' for text in ("a", *said))
        (folder / "x.csv").write_text(f"id,instruction,output\n{cells}\n", encoding="utf-8", newline="")
        pq.write_table(pa.table({key: [value] for key, value in row.items()}), folder / "x.parquet")
        for path in sorted(folder.iterdir()):
            (record,) = read(path, TASKS[0]) or [None]
            assert json.loads(record.content) == {"instruction": said[0], "input": "", "output": said[1]}, path.name
