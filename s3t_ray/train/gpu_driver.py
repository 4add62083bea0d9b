"""Explains why torch sees no GPU, and how to fix it.

In: the CUDA version that torch was built for, and this machine's driver. Out: a problem and a fix. Pure, except that
it reads /proc/driver/nvidia/version. torch itself reports at most that a driver is too old.
"""

from __future__ import annotations

import re
from pathlib import Path

VERSION_FILE = Path("/proc/driver/nvidia/version")
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
"""CUDA major version -> the oldest driver branch that supports it (NVIDIA's minor version compatibility table)."""


def driver_version(file: Path = VERSION_FILE) -> str | None:
    """The version of the loaded NVIDIA driver, such as 580.159.04; None if no driver is loaded."""
    if not file.exists():
        return None
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", file.read_text(), re.MULTILINE)
    return found.group(1) if found else None


def why_no_gpu(torch_version: str, cuda: str | None, driver: str | None, visible: str | None) -> tuple[str, str]:
    """The problem that keeps this torch from using a GPU, and its fix. `visible`: CUDA_VISIBLE_DEVICES."""
    if cuda is None:
        return (
            f"torch {torch_version} was built without CUDA",
            "install a CUDA build of torch on every node, or set workers.gpus_per_rank to 0",
        )
    if driver is None:
        return (
            f"no NVIDIA driver is loaded ({VERSION_FILE} is missing)",
            "install the driver, start the container with GPU access, or set workers.gpus_per_rank to 0",
        )
    oldest = OLDEST_DRIVERS.get(int(cuda.partition(".")[0]))
    if oldest is not None and int(driver.partition(".")[0]) < oldest:
        return (
            f"torch {torch_version} was built for CUDA {cuda}, which needs an NVIDIA driver of {oldest} or newer, and "
            f"this machine has {driver}",
            f"update the driver to {oldest} or newer, or install the build of the same torch for an older CUDA "
            "(PyTorch's own package index has one for each)",
        )
    return (
        f"torch {torch_version} (CUDA {cuda}, driver {driver}) sees no GPU with CUDA_VISIBLE_DEVICES={visible!r}",
        "check nvidia-smi on this node, and unset CUDA_VISIBLE_DEVICES if it hides the GPUs",
    )
