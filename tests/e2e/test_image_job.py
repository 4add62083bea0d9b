"""The main job on pictures and on sentences to classify, as a user runs it: killed once, deleted from, and audited."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from s3t_ray.data.slices import read_slice
from tests.command import s3t
from tests.images import LABELS, png
from tests.tiny import tiny_bert, tiny_vit

RECORDS, HELD_OUT = 24, 6


@dataclass(frozen=True)
class Life:
    """A run, a record to delete, and bytes by which that record would be found in the run's folder."""

    run: Path
    doomed: str
    traces: tuple[bytes, ...]


def of_pictures(folder: Path) -> tuple[dict[str, Any], str, tuple[bytes, ...]]:
    tiny_vit(folder / "base", layers=4)
    for number in range(RECORDS):
        split = "test" if number >= RECORDS - HELD_OUT else "train"
        file = folder / "pictures" / split / LABELS[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number, LABELS[number % 2]))
    task = {"kind": "image_classification", "labels": list(LABELS)}
    data = {"path": str(folder / "pictures"), "holdout_split": "test"}
    return {"task": task, "data": data}, "stripes/5.png", (b"stripes/5.png",)


def of_sentences(folder: Path) -> tuple[dict[str, Any], str, tuple[bytes, ...]]:
    tiny_bert(folder / "base", layers=4)
    rows = [
        {
            "id": f"said-{number}",
            "text": f"number {number * 7919} is {'even' if number % 2 == 0 else 'odd'}",
            "label": LABELS[number % 2],
        }
        for number in range(RECORDS)
    ]
    for name, own in (("train", rows[:-HELD_OUT]), ("test", rows[-HELD_OUT:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    task = {"kind": "classification", "labels": list(LABELS), "max_tokens": 64}
    data = {"path": str(folder / "train.jsonl"), "holdout_path": str(folder / "test.jsonl"), "id_field": "id"}
    return {"task": task, "data": data}, "said-5", (b"said-5", b"number 39595 is")


@pytest.fixture(scope="module", params=[of_pictures, of_sentences], ids=["pictures", "sentences"])
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A trained run; its first training was killed with SIGKILL."""
    folder = tmp_path_factory.mktemp("life")
    sections, doomed, traces = request.param(folder)
    document = {
        "name": "judged",
        "shards": 1,
        "slices": 2,
        "budget": 2,
        "model": {"path": str(folder / "base")},
        "lora": {"layers_per_group": 1, "rank": 4},
        "optimizer": {"epochs": 8, "batch_records": 4, "lr": 0.01},
        "workers": {"groups": 1},
        "storage": {"uri": str(folder / "run")},
        **sections,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    root = folder / "run"
    driver = subprocess.Popen(
        [sys.executable, "-m", "s3t_ray.cli.main", "train", str(folder / "config.yaml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    pause = threading.Event()
    while not list(root.glob("stages/*/manifest.json")):
        assert driver.poll() is None, driver.stderr.read().decode()  # type: ignore[union-attr]
        pause.wait(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    published = len(list(root.glob("stages/*/manifest.json")))
    report = json.loads(s3t("train", str(folder / "config.yaml"), "--json"))
    assert report["trained"] <= 4 - published and report["status"]["settled"]
    return Life(root, doomed, traces)


def holding(life: Life) -> list[Path]:
    """Files in the run's folder that hold a trace of the doomed record, packed in a slice or not."""
    found = []
    for path in life.run.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".parquet":
            data += b"".join(f"{row.id} {row.content}".encode() for row in read_slice(path))
        if any(trace in data for trace in life.traces):
            found.append(path)
    return found


def test_the_life_of_a_run_that_judges(life: Life) -> None:
    run = str(life.run)
    report = json.loads(s3t("eval", run, "--json"))
    accuracy = [entry["metrics"]["accuracy"] for entry in report["by_depth"]]
    losses = [entry["loss"] for entry in report["by_depth"]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3) and losses[2] < losses[0] and accuracy[2] >= 0.5

    assert holding(life)
    s3t("delete", run, "--id", life.doomed)
    state = json.loads(s3t("status", run, "--json"))
    assert state["settled"] and state["deletions"][0]["state"] == "restored"
    assert state["records"] == RECORDS - HELD_OUT - 1
    assert holding(life) == []
    assert json.loads(s3t("verify", run, "--json"))["problems"] == []
    audited = json.loads(s3t("audit", run, "--full", "--json"))
    assert audited["problems"] == [] and {stage["verdict"] for stage in audited["replayed"]} == {"equal"}
