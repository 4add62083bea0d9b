"""The main job as a user runs it: the `s3t` command, real Ray, real DeepSpeed, a tiny random Llama.

One run goes through its whole life, killed with kill -9 in the middle of training on the way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.command import s3t
from tests.fakes import write_records
from tests.tiny import tiny_llama

RECORDS = [(f"r{number}", f"p{number % 9}") for number in range(54)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    tiny_llama(folder / "base", layers=6, hidden=32)
    write_records(folder / "data.jsonl", RECORDS)
    write_records(folder / "held.jsonl", [(f"h{number}", None) for number in range(6)])
    document = {
        "name": "life",
        "shards": 2,
        "slices": 3,
        "budget": 2,
        "model": {"path": str(folder / "base")},
        "data": {
            "path": str(folder / "data.jsonl"),
            "subject_field": "subject",
            "partition_by": "subject",
            "partition_key": "seed",
            "holdout_path": str(folder / "held.jsonl"),
        },
        "lora": {"layers_per_group": 2, "rank": 4},
        "optimizer": {"epochs": 2, "lr": 0.01},
        "workers": {"groups": 1},
        "storage": {"uri": str(folder / "run")},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    yield path


@pytest.fixture(scope="module")
def run(config: Path) -> Path:
    """The run, trained; killed once in mid-training on the way."""
    root = config.parent / "run"
    driver = subprocess.Popen(
        [sys.executable, "-m", "s3t_ray.cli.main", "train", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    pause = threading.Event()
    for _ in range(1200):
        if len(list(root.glob("stages/*/manifest.json"))) >= 3:
            break
        assert driver.poll() is None, driver.stderr.read().decode()  # type: ignore[union-attr]
        pause.wait(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    published = {path: path.stat().st_mtime_ns for path in root.glob("stages/*/manifest.json")}
    assert 3 <= len(published) < 12

    report = json.loads(s3t("train", str(config), "--json"))
    assert report["trained"] <= 12 - len(published)
    assert {path: path.stat().st_mtime_ns for path in published} == published, "a published stage was trained twice"
    assert report["status"]["settled"]
    return root


def test_the_run_is_whole_and_running_again_trains_nothing(run: Path, config: Path) -> None:
    assert [shard["depths"] for shard in json.loads(s3t("status", str(run), "--json"))["shards"]] == [[3, 3], [3, 3]]
    assert json.loads(s3t("train", str(config), "--json"))["trained"] == 0


def test_held_out_loss_of_every_depth(run: Path) -> None:
    report = json.loads(s3t("eval", str(run), "--json"))
    losses = [entry["loss"] for entry in report["by_depth"]]
    assert len(losses) == 4 and losses[3] < losses[0], "training must lower the held-out loss of this regular text"
    assert report["live"]["loss"] == pytest.approx(losses[3])


def test_an_export_gives_the_logits_that_the_run_serves(run: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from s3t_ray.ensemble.ensemble import Ensemble
    from s3t_ray.ensemble.in_process import serving_chains
    from s3t_ray.run.run import Run

    s3t("export", str(run), "--shard", "1", str(tmp_path / "out"))
    base = AutoModelForCausalLM.from_pretrained(run.parent / "base", dtype=torch.float32)
    ids = torch.tensor([[5, 9, 40, 33, 2, 7]])
    plain = base(ids).logits[0]
    exported = PeftModel.from_pretrained(base, tmp_path / "out")(ids).logits[0]
    with Run.open(run) as opened:
        ensemble = Ensemble(opened.config, opened.base, opened.store)
        ensemble.set_live(1, {1: serving_chains(opened)[1]})
        served = ensemble.logits(ids[0].tolist())
    assert torch.allclose(exported, served, atol=1e-4)
    assert not torch.allclose(exported, plain, atol=1e-2), "the adapter must change the output"


def test_a_deletion_from_receipt_to_certificate_and_replay(run: Path) -> None:
    dry = json.loads(s3t("delete", str(run), "--subject", "p4", "--dry-run", "--json"))
    assert dry["records"] == 6 and dry["shards"]
    s3t("delete", str(run), "--subject", "p4", "--id", "nobody", code=4)
    state = json.loads(s3t("status", str(run), "--json"))
    assert state["settled"] and state["deletions"][0]["state"] == "restored" and state["records"] == 48
    assert json.loads(s3t("verify", str(run), "--json"))["problems"] == []
    for path in run.rglob("*"):
        assert not path.is_file() or b"nobody" not in path.read_bytes()


def test_the_full_audit_replays_stages_and_measures_membership(run: Path, config: Path, tmp_path: Path) -> None:
    """Submit the records of `p4` again, after the deletion above."""
    rows = [
        line for line in (config.parent / "data.jsonl").read_text().splitlines() if json.loads(line)["subject"] == "p4"
    ]
    (tmp_path / "p4.jsonl").write_text("".join(f"{row}\n" for row in rows))
    report = json.loads(s3t("audit", str(run), "--full", "--records", str(tmp_path / "p4.jsonl"), "--json"))
    deletions = json.loads(s3t("status", str(run), "--json"))["deletions"]
    assert report["problems"] == [] and report["certificates"] == len(deletions)
    assert [stage["verdict"] for stage in report["replayed"]] == ["equal", "equal"]
    membership = report["membership"]
    assert membership["named"]["records"] == len(rows) == 6
    for group in (membership["retained"], membership["named"]):
        attacks = {attack["attack"]: attack["auc"] for attack in group["attacks"]}
        assert attacks.keys() == {"reference_loss", "min_k", "min_k_reference"}
        assert all(0 <= auc["low"] <= auc["value"] <= auc["high"] <= 1 for auc in attacks.values())


def test_errors_name_the_thing_and_the_fix(run: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "s3t_ray.cli.main", "status", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "no run at" in done.stderr and "Traceback" not in done.stderr
