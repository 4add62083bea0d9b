"""The main job on images and on sentences, as a user runs it: train, kill once, delete and audit by `s3t`."""

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

from tests.command import s3t
from tests.images import LABELS, png
from tests.tiny import tiny_bert, tiny_vit

RECORDS, HELD_OUT = 18, 6
WORDS = ("rain rain rain", "sun sun sun")


@dataclass(frozen=True)
class Job:
    """A trained run, and one of its records."""

    root: Path
    record: str
    trace: bytes
    """What would show the record if it were still in a file."""


def pictures(folder: Path) -> tuple[dict[str, Any], str, bytes]:
    """A folder of pictures and the config's sections for it; a record's id, and what shows it in a file."""
    tiny_vit(folder / "base", layers=4)
    for number in range(RECORDS + HELD_OUT):
        split = "test" if number >= RECORDS else "train"
        file = folder / "pictures" / split / LABELS[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number, LABELS[number % 2]))
    sections = {
        "task": {"kind": "image_classification", "labels": list(LABELS)},
        "data": {"path": str(folder / "pictures"), "holdout_split": "test", "partition_key": "seed"},
    }
    return sections, "stripes/5.png", b"stripes/5.png"


def sentences(folder: Path) -> tuple[dict[str, Any], str, bytes]:
    """The same for two files of labelled sentences."""
    tiny_bert(folder / "base", layers=4)
    rows = [
        {"id": f"s{number}", "text": f"{WORDS[number % 2]} on day {number * 7919}", "label": LABELS[number % 2]}
        for number in range(RECORDS + HELD_OUT)
    ]
    for name, own in (("train", rows[:RECORDS]), ("dev", rows[RECORDS:])):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in own))
    sections = {
        "task": {"kind": "classification", "labels": list(LABELS), "max_tokens": 64},
        "data": {
            "path": str(folder / "train.jsonl"),
            "holdout_path": str(folder / "dev.jsonl"),
            "id_field": "id",
            "partition_key": "seed",
        },
    }
    return sections, "s5", b"on day 39595"


@pytest.fixture(scope="module", params=[pictures, sentences], ids=lambda made: made.__name__)
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A trained run; its first training was killed with SIGKILL."""
    folder = tmp_path_factory.mktemp("life")
    sections, record, trace = request.param(folder)
    document = {
        "name": "classes",
        "shards": 1,
        "slices": 2,
        "budget": 2,
        "model": {"path": str(folder / "base")},
        "lora": {"layers_per_group": 1, "rank": 4},
        "optimizer": {"epochs": 8, "batch_records": 4, "lr": 0.005},
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
    return Job(root, record, trace)


def test_the_life_of_a_classification_run(job: Job) -> None:
    run = str(job.root)
    report = json.loads(s3t("eval", run, "--json"))
    accuracy = [entry["metrics"]["accuracy"] for entry in report["by_depth"]]
    losses = [entry["loss"] for entry in report["by_depth"]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3) and losses[2] < losses[0] and accuracy[2] >= 0.5

    s3t("export", run, str(job.root.parent / "out"), code=2)  # heads cannot be averaged: it takes --shard

    s3t("delete", run, "--id", job.record)
    state = json.loads(s3t("status", run, "--json"))
    assert state["settled"] and state["deletions"][0]["state"] == "restored" and state["records"] == RECORDS - 1
    for path in job.root.rglob("*"):
        assert not path.is_file() or job.trace not in path.read_bytes(), path
    audited = json.loads(s3t("audit", run, "--full", "--json"))
    assert audited["problems"] == [] and {stage["verdict"] for stage in audited["replayed"]} == {"equal"}
