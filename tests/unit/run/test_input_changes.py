"""A run keeps its ingested records: later changes of the data are reported, and nothing is purged automatically."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from s3t_ray.errors import ConfigError
from s3t_ray.run.deletion import accept
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from s3t_ray.store import layout
from tests.fakes import Cluster, fake_base, small_config, write_records

PEOPLE = [(f"r{at}", None) for at in range(12)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", PEOPLE)
    cluster = Cluster(small_config(tmp_path))
    cluster.settle()
    cluster.run.close()
    return tmp_path


def said(folder: Path) -> str:
    notes: list[str] = []
    with Run.create(small_config(folder)) as run:
        ingest(run, notes.append)
    return "\n".join(notes)


def test_nothing_is_said_of_data_that_was_not_touched(folder: Path) -> None:
    assert said(folder) == ""


def test_data_that_was_touched_is_compared(folder: Path) -> None:
    os.utime(folder / "data.jsonl", ns=(1, 1))
    assert said(folder) == f"{folder}/data.jsonl was changed since the run read it: comparing"


def test_new_changed_and_missing_rows_are_counted(folder: Path) -> None:
    rows = [*PEOPLE[2:], ("new1", None), ("new2", None), ("new3", None)]
    write_records(folder / "data.jsonl", rows, {"r5": "other words"})
    told = said(folder)
    assert "3 new rows, 1 rows of another content, 2 rows missing" in told
    assert "begin a new run" in told and "s3t delete" in told
    with Run.create(small_config(folder)) as run:
        accept(run, ["r0", "r1", "r7"], [])
    told = said(folder)
    assert "3 new rows, 1 rows of another content. The run" in told
    assert "1 rows of " in told and "they stay deleted" in told


def test_another_path_is_said_and_compared(folder: Path) -> None:
    write_records(folder / "other.jsonl", [*PEOPLE[3:], ("new1", None)])
    notes: list[str] = []
    with Run.create(
        small_config(folder, data={"path": str(folder / "other.jsonl"), "subject_field": "subject"})
    ) as run:
        ingest(run, notes.append)
    told = "\n".join(notes)
    assert f"data.path was {folder}/data.jsonl when the run read its records, and is {folder}/other.jsonl now" in told
    assert "1 new rows, 3 rows missing" in told
    notes.clear()
    far = {"path": "s3://bucket/other.jsonl", "subject_field": "subject"}
    with Run.create(small_config(folder, data=far)) as run:
        ingest(run, notes.append)
    assert len(notes) == 1 and "is s3://bucket/other.jsonl now. The run keeps its records" in notes[0]


def test_data_that_is_gone_is_said_and_the_run_goes_on(folder: Path) -> None:
    (folder / "data.jsonl").unlink()
    told = said(folder)
    assert "can no longer be read" in told and "keeps the records" in told


def test_a_smaller_budget_asks_before_trained_stages_go(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"6 of 12 trained stages") as caught:
        Run.create(small_config(folder, budget=1))
    assert "--drop-stages" in caught.value.fix
    with Run.open(folder / "run") as run:
        assert run.config.budget == 2, "nothing was changed"
    with Run.create(small_config(folder, budget=1), drop_stages=True) as run:
        assert len(run.wanted_stages()) == 6
    with Run.create(small_config(folder, budget=3)) as run:
        assert run.config.budget == 3, "a larger one asks nothing"


def test_status_says_how_the_data_falls_and_what_teaches_nothing(folder: Path) -> None:
    with Run.open(folder / "run") as run:
        now = status(run)
        sizes = [state.records for state in run.ledger.slices() if state.shard >= 0]
        assert (now.smallest_slice, now.largest_slice, now.empty_slices) == (min(sizes), max(sizes), sizes.count(0))
        assert now.teaching_nothing == 0 and not now.ids_derived
        summary = json.loads(run.store.read_bytes(layout.INPUT_SUMMARY))
        run.store.write_bytes(layout.INPUT_SUMMARY, json.dumps({**summary, "teaching_nothing": 4}).encode())
    with Run.open(folder / "run") as run:
        assert status(run).teaching_nothing == 4
