"""The message when torch sees no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from s3t_ray.errors import TrainError
from s3t_ray.train import ranks
from s3t_ray.train.gpu_driver import driver_version, why_no_gpu

VERSION = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder@U16)
GCC version:  gcc version 13.2.0
"""


def test_the_driver_is_read(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert driver_version(file) is None
    file.write_text(VERSION)
    assert driver_version(file) == "550.54.15"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue\n")
    assert driver_version(file) == "580.159.04"
    file.write_text("nothing of the kind\n")
    assert driver_version(file) is None


@pytest.mark.parametrize(
    ("cuda", "driver", "problem", "fix"),
    [
        (None, "580.1", "built without CUDA", "CUDA build"),
        ("13.0", None, "no NVIDIA driver", "install the driver"),
        ("13.0", "550.54.15", "an NVIDIA driver of 580 or newer, and this machine has 550.54.15", "older CUDA"),
        ("12.8", "470.1", "needs an NVIDIA driver of 525", "older CUDA"),
        ("13.0", "580.159.04", "CUDA_VISIBLE_DEVICES='3'", "nvidia-smi"),
        ("12.8", "550.54.15", "CUDA_VISIBLE_DEVICES='3'", "nvidia-smi"),
        ("14.1", "590.1", "CUDA_VISIBLE_DEVICES='3'", "nvidia-smi"),
    ],
)
def test_the_reason_names_the_driver_and_the_way_out(
    cuda: str | None, driver: str | None, problem: str, fix: str
) -> None:
    said, advice = why_no_gpu("2.13.0", cuda, driver, "3")
    assert problem in said
    assert fix in advice


def test_a_rank_without_a_gpu_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainError, match="gpus_per_rank is 1, but"):
        ranks.join(0, 1, None, 1)


def test_a_group_of_one_on_a_gpu_meets_in_a_file_of_its_own() -> None:
    """NCCL itself needs a GPU; the store that it is given does not."""
    store, other = (ranks._lone_store(torch.device("cuda")) for _ in range(2))
    assert isinstance(store, dist.FileStore)
    store.set("key", "value")
    assert store.get("key") == b"value"
    assert not other.check(["key"])
