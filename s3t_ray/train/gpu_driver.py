"""Why torch sees no GPU, in words that name the driver and the way out.

In: what torch was built for, and the driver of this machine. Out: a problem and a fix. Pure but for reading
/proc/driver/nvidia/version. torch itself says only that a driver is too old, or nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

VERSION_FILE = Path("/proc/driver/nvidia/version")
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
"""By major version of CUDA: the oldest driver branch that runs it (NVIDIA's table of minor version compatibility)."""


def driver_version(file: Path = VERSION_FILE) -> str | None:
    """Version of the loaded NVIDIA driver, such as 580.159.04; None: none is loaded."""
    if not file.exists():
        return None
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", file.read_text(), re.MULTILINE)
    return found.group(1) if found else None


def why_no_gpu(torch_version: str, cuda: str | None, driver: str | None, visible: str | None) -> tuple[str, str]:
    """What keeps this torch from a GPU, and what to do. `visible`: CUDA_VISIBLE_DEVICES."""
    if cuda is None:
        return (
            f"torch {torch_version} was built without CUDA",
            "install a CUDA build of torch on every node, or set workers.gpus_per_rank to 0",
        )
    if driver is None:
        return (
            f"no NVIDIA driver is loaded ({VERSION_FILE} is missing)",
            "install the driver, start the container with its GPUs, or set workers.gpus_per_rank to 0",
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
        "look at nvidia-smi on this node, and reset what CUDA_VISIBLE_DEVICES hides",
    )
