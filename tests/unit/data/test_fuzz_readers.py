"""Any bytes in a file give records or one of our errors, and never a record that differs from the file.

`S3T_FUZZ=30 pytest tests/unit/data/test_fuzz_readers.py` tries 30 times as many; so does `python -m
benchmarks.fuzz_readers`, with a table.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.config.schema import Task
from tests.unit.data.mangled_files import ROWS, SAMPLES, TASKS, faults, mangled, read

MANY = settings(max_examples=150 * int(os.environ.get("S3T_FUZZ", "1")))
PER_FILE = 30 * int(os.environ.get("S3T_FUZZ", "1"))
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


@pytest.mark.parametrize("name", SAMPLES)
def test_a_damaged_file_is_refused_or_read_as_it_is(name: str, tmp_path: Path) -> None:
    for seed in range(PER_FILE):
        random = Random(f"{name}/{seed}")
        data = mangled(random, name)
        path = tmp_path / name
        path.write_bytes(data)
        found = read(path, random.choice(TASKS))
        assert list(faults(name, data, found)) == [], f"seed {seed}"


@pytest.mark.parametrize("name", SAMPLES)
def test_the_whole_files_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(SAMPLES[name])
    kinds = [read(tmp_path / name, task) for task in TASKS]
    assert max(len(found.records) for found in kinds) >= 2
    assert [fault for found in kinds for fault in faults(name, SAMPLES[name], found)] == []


def test_a_parquet_column_whose_name_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(SAMPLES["plain.parquet"].replace(b"output", b"out\xffut"))
    refused = read(path, TASKS[0]).refused
    assert refused is not None and "not a complete Parquet file" in refused.problem


def test_a_turned_bit_that_a_parquet_page_s_checksum_covers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["three"]}), path, compression="none", write_page_checksum=True)
    path.write_bytes(path.read_bytes().replace(b"three", b"thrue", 1))
    refused = read(path, TASKS[0]).refused
    assert refused is not None and "could not verify page integrity" in refused.problem


def test_the_fuzz_finds_a_record_that_says_other_than_its_file(tmp_path: Path) -> None:
    data = SAMPLES["lines.jsonl"]
    (tmp_path / "lines.jsonl").write_bytes(data.replace(b"Hallo", b"Hello"))
    found = read(tmp_path / "lines.jsonl", TASKS[1])
    assert [fault[:12] for fault in faults("lines.jsonl", data, found)] == ["record '2' s"]
    del found.records[:2]
    assert list(faults("lines.jsonl", data, found)) == ["6 rows became 4 records and 0 rejects"]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".parquet", ".jsonl.zst"])
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
        for record in read(path, task).records:
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
            (record,) = read(path, TASKS[0]).records
            assert json.loads(record.content) == {"instruction": said[0], "input": "", "output": said[1]}, path.name
