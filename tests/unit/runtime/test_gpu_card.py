"""A GPU as nvidia-smi shows it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.config.schema import ModelShape
from s3t_ray.errors import ConfigError
from s3t_ray.plan.card_memory import Card
from s3t_ray.runtime.gpu_card import check_own_card, read_card
from tests.fakes import small_config

SHAPE = ModelShape(layers=6, hidden=32, intermediate=64, heads=4, kv_heads=2, vocabulary=300)

SMI = """#!/bin/sh
echo "$@" > {seen}
{answer}
"""


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> Path:
    """A stand-in on PATH that answers so; what it was asked lands in the file that is returned."""
    seen = folder / "asked"
    script = folder / "nvidia-smi"
    script.write_text(SMI.format(seen=seen, answer=answer))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    return seen


def test_name_and_memory_of_the_gpu_that_this_process_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = nvidia_smi(tmp_path, monkeypatch, 'echo "NVIDIA H100 80GB HBM3, 81559"; echo "another, 1"')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert read_card() == Card("NVIDIA H100 80GB HBM3", 81559 << 20)
    assert seen.read_text().split()[-2:] == ["-i", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert read_card() is not None
    assert "-i" not in seen.read_text()


@pytest.mark.parametrize("answer", ["exit 9", "echo", 'echo "No devices were found"', 'echo "NVIDIA Thing, [N/A]"'])
def test_no_gpu_to_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    nvidia_smi(tmp_path, monkeypatch, answer)
    assert read_card() is None


def test_a_driver_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started = []

    class Noted(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr("s3t_ray.runtime.gpu_card.subprocess.Popen", Noted)
    monkeypatch.setattr("s3t_ray.runtime.gpu_card.SMI_SECONDS", 0.2)
    nvidia_smi(tmp_path, monkeypatch, 'echo "NVIDIA Thing, 1024"; exec sleep 30')
    assert read_card() is None, "what it printed before it hung may be half of it"
    assert "nvidia-smi did not answer within 0.2 s" in caplog.text
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_logical_gpus_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, 'echo "NVIDIA Thing, 4"')
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert read_card() is None
    monkeypatch.delenv("DS_ACCELERATOR")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert read_card() is None


def test_a_rank_looks_at_its_own_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, 'echo "NVIDIA Thing, 1024"')
    on_cpu = small_config(tmp_path)
    check_own_card(on_cpu, SHAPE)
    with pytest.raises(ConfigError, match=r"NVIDIA Thing has 1\.0 GiB"):
        check_own_card(small_config(tmp_path, workers={"gpus_per_rank": 1}), SHAPE)
