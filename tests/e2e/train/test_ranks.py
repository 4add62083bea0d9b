"""Worker groups of one and two ranks in separate processes, against training in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.store.published_stage import read_manifest
from tests.e2e.train.lab import Lab, make_lab, save_lab, train_chain
from tests.tiny import tiny_llama

ROOT = Path(__file__).resolve().parents[3]
HANG_SECONDS = 600  # only so that a hang of a rank ends


def start(rank: int, world: int, init_method: str, labs: list[Lab]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.e2e.train.rank_main", str(rank), str(world), init_method]
    return subprocess.Popen(
        [*command, *(str(save_lab(lab)) for lab in labs)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def results(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, output
    return [json.loads(line.removeprefix("RESULT ")) for line in output.splitlines() if line.startswith("RESULT ")]


def test_ranks_and_processes(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", layers=3)
    lora = {"layers_per_group": 1}
    engine = {"micro_batch_tokens": 128, "checkpoint_steps": 1}
    pairs = [
        make_lab(tmp_path / f"pair{zero}", base=base, lora=lora, engine={**engine, "ranks": 2, "zero_stage": zero})
        for zero in (0, 2, 3)
    ]
    solo = make_lab(tmp_path / "solo", base=base, lora={**lora, "dropout": 0.1}, engine=engine)
    meeting = f"file://{tmp_path / 'meeting'}"
    processes = [start(0, 2, meeting, pairs), start(1, 2, meeting, pairs), start(0, 1, "", [solo])]
    try:
        here = make_lab(tmp_path / "here", base=base, lora=lora, engine=engine)
        plain = [loss for name in train_chain(here, here.trainer(), "s", (0, 1)) for loss in losses(here, name)]
        same = make_lab(tmp_path / "same", base=base, lora={**lora, "dropout": 0.1}, engine=engine)
        ours = [
            read_manifest(same.store, name).adapter_sha256 for name in train_chain(same, same.trainer(), "s", (0, 1))
        ]
        first, second, alone = [results(process) for process in (processes[1], processes[0], processes[2])]
    finally:
        for process in processes:
            process.kill()
    for rank in (first, second):
        shares = [result.pop("held") for result in rank]
        assert shares[:2] == [1.0, 1.0]
        assert shares[2] < 0.6, "ZeRO 3 splits the base as it is loaded"
    assert first == second, "two ranks of one group saw different results"
    assert [result["zero"] for result in first] == [0, 2, 3]
    for result in first:
        assert result["losses"] == pytest.approx(plain, abs=1e-3)
        assert result["again"] == result["adapters"]
        assert result["stopped"]
    assert alone[0]["adapters"] == ours, "another process came to other bytes"
    for lab in (*pairs, solo):
        assert not lab.store.files("checkpoints") and not lab.store.files("stages/stopped")
        assert not lab.store.files("hidden/" + "b" * 16 + "/0/2")
    assert any(path.endswith("layer-2/part-1.safetensors") for path in pairs[2].store.files("hidden"))


def losses(lab: Lab, name: str) -> tuple[float, ...]:
    return read_manifest(lab.store, name).losses
