"""The main job on images as a user runs it: `s3t` over a folder of pictures, killed once, deleted from, and audited."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from tests.command import s3t
from tests.images import LABELS, png
from tests.tiny import tiny_vit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run over a folder of pictures; its first training was killed with SIGKILL."""
    folder = tmp_path_factory.mktemp("life")
    tiny_vit(folder / "base", layers=4)
    for number in range(24):
        split = "test" if number >= 18 else "train"
        file = folder / "pictures" / split / LABELS[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number, LABELS[number % 2]))
    document = {
        "name": "pictures",
        "shards": 1,
        "slices": 2,
        "budget": 2,
        "model": {"path": str(folder / "base")},
        "task": {"kind": "image_classification", "labels": list(LABELS)},
        "data": {"path": str(folder / "pictures"), "holdout_split": "test"},
        "lora": {"layers_per_group": 1, "rank": 4},
        "optimizer": {"epochs": 8, "batch_records": 4, "lr": 0.01},
        "workers": {"groups": 1},
        "storage": {"uri": str(folder / "run")},
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
    return root


def test_the_life_of_a_run_over_pictures(run: Path) -> None:
    report = json.loads(s3t("eval", str(run), "--json"))
    accuracy = [entry["metrics"]["accuracy"] for entry in report["by_depth"]]
    losses = [entry["loss"] for entry in report["by_depth"]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3) and losses[2] < losses[0] and accuracy[2] >= 0.5

    s3t("delete", str(run), "--id", "stripes/5.png")
    state = json.loads(s3t("status", str(run), "--json"))
    assert state["settled"] and state["deletions"][0]["state"] == "restored" and state["records"] == 17
    for path in run.rglob("*"):
        assert not path.is_file() or b"stripes/5.png" not in path.read_bytes(), path
    assert json.loads(s3t("verify", str(run), "--json"))["problems"] == []
    audited = json.loads(s3t("audit", str(run), "--full", "--json"))
    assert audited["problems"] == [] and {stage["verdict"] for stage in audited["replayed"]} == {"equal"}
