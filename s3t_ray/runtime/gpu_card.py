"""Finds the GPU that a run trains on, and checks that its stages fit.

In: the config; a node of the cluster, or this process. Out: the plan's verdict. Reads the GPU with nvidia-smi, which
needs no torch. Without a GPU, Ray's GPUs may be logical ones, and nothing is checked. The same applies if nvidia-smi
does not respond, for example because of a hanging driver; the log says so.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from shutil import which

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.card_memory import Card, check_card
from s3t_ray.plan.resources import bundles
from s3t_ray.runtime.connect import nodes

PATIENCE_SECONDS = 30
"""Maximum wait for a free GPU in the cluster. Each rank checks again when it starts."""

SMI_SECONDS = 60.0
"""Maximum wait for nvidia-smi, which takes several seconds to initialize eight GPUs."""

_log = logging.getLogger(__name__)


def read_card() -> Card | None:
    """The first GPU that this process sees; None if nvidia-smi is missing, shows none or does not respond."""
    if which("nvidia-smi") is None or os.environ.get("DS_ACCELERATOR") == "cpu":
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    shown = _printed([*command, *(["-i", visible] if visible else [])])
    name, _, mebibytes = shown.partition("\n")[0].rpartition(",")
    if not mebibytes.strip().isdigit():
        return None
    return Card(name.strip(), int(mebibytes) * 2**20)


def _printed(command: Sequence[str]) -> str:
    """The output of the command; empty if it fails or takes longer than SMI_SECONDS."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        printed, _ = process.communicate(timeout=SMI_SECONDS)
    except subprocess.TimeoutExpired:
        _log.warning(
            "nvidia-smi did not answer within %g s: the memory of this node's GPU is not compared with the plan. The "
            "driver may hang: check `dmesg` there, and reset the GPU or restart the node",
            SMI_SECONDS,
        )
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # a process that hangs in the driver cannot be killed
            process.wait(1)
        if process.stdout is not None:
            process.stdout.close()
        return ""
    return "" if process.returncode else printed


def check_own_card(config: Config, shape: ModelShape) -> None:
    """Raise ConfigError if the stages of `config` do not fit the GPU of this process."""
    card = read_card() if config.workers.gpus_per_rank else None
    if card is not None:
        check_card(config, shape, card)


def check_a_card(config: Config, shape: ModelShape, note: Callable[[str], None]) -> None:
    """Raise ConfigError if the stages do not fit a GPU of the connected cluster; `note` a tight fit."""
    card = _of_cluster(config)
    if card is None:
        return
    warning = check_card(config, shape, card)
    if warning is not None:
        note(warning)


def _of_cluster(config: Config) -> Card | None:
    """A GPU of the kind that a rank would get; None if there is none, or none becomes free soon."""
    if not config.workers.gpus_per_rank or not any(node.get("GPU") for node in nodes()):
        return None
    import ray

    wanted = dict(bundles(config)[0])
    wanted.pop("CPU")
    asked = (
        ray.remote(read_card)
        .options(
            num_cpus=0,
            num_gpus=wanted.pop("GPU"),
            resources=wanted or None,
            max_retries=0,
            scheduling_strategy="SPREAD",  # otherwise it would have to fit in the bundle of a sweep's trial
        )
        .remote()
    )
    ready, _ = ray.wait([asked], timeout=PATIENCE_SECONDS)
    if not ready:
        ray.cancel(asked)
        return None
    card: Card | None = ray.get(asked)
    return card
