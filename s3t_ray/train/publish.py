"""Checks a trained stage and publishes it: adapter, PEFT config, task head, and the manifest last.

In: complete tensors by name. Out: the stage's folder in the store. Never publishes a tensor that is not finite, or
that belongs to a layer outside the stage's group.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from s3t_ray import __version__
from s3t_ray.config.schema import Config
from s3t_ray.errors import TrainError
from s3t_ray.store.layout import MANIFEST, stage_folder
from s3t_ray.store.manifest import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    HEAD_FILE,
    Manifest,
    SliceLearned,
    write_manifest,
)
from s3t_ray.store.seal import seal
from s3t_ray.store.store import Store
from s3t_ray.train.fence import is_overtaken
from s3t_ray.train.grouped import GroupedModel
from s3t_ray.train.job import StageJob, StageResult, StageStopped
from s3t_ray.train.ranks import Group
from s3t_ray.train.task_models.task_model import TaskModel

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "deepspeed", "safetensors", "numpy")


@dataclass(frozen=True)
class Trained:
    """The result of a stage's steps."""

    tensors: dict[str, Tensor]  # complete tensors of adapter and task head, by published name
    losses: tuple[float, ...]  # mean loss per labelled token of each step
    records: int  # records with at least one labelled target
    tokens: int  # input tokens over all epochs and ranks


def publish_stage(
    store: Store,
    job: StageJob,
    config: Config,
    grouped: GroupedModel,
    trained: Trained,
    seconds: float,
    group: Group,
) -> StageResult:
    """Check the trained tensors and publish them from rank 0. Every rank returns the same result.

    Raises TrainError if a tensor is missing, unexpected or not finite; StageStopped if a deletion was purged in the
    meantime, in which case nothing of the stage remains.
    """
    names = grouped.tensor_names(job.depth)
    heads = sorted(grouped.base.fresh)
    check_tensors(job.stage_id, trained.tensors, [*names, *heads])
    files = {
        ADAPTER_FILE: _safetensors(trained.tensors, names),
        ADAPTER_CONFIG: _json(peft_config(grouped.modules_at(job.depth), config, grouped.base.task)),
    }
    if heads:
        files[HEAD_FILE] = _safetensors(trained.tensors, heads)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = Manifest(
        stage_id=job.stage_id,
        shard=job.shard,
        slices=tuple(SliceLearned(index=piece.slice, digest=piece.digest) for piece in job.slices),
        parents=job.parents,
        recipe_digest=job.recipe_digest,
        base_digest=job.base_digest,
        adapter_sha256=digests[ADAPTER_FILE],
        files=digests,
        losses=trained.losses,
        steps=len(trained.losses),
        records=trained.records,
        unlabelled=sum(piece.records for piece in job.slices) - trained.records,
        tokens=trained.tokens,
        seconds=seconds,
        versions=versions(config.model.quantize != "none", grouped.base.family.architecture == "vision"),
        machine=machine(group.device),
    )
    manifest = seal(manifest, job.seal_key)
    overtaken = False
    if group.rank == 0 and not (overtaken := is_overtaken(store, job)):
        store.publish(stage_folder(job.stage_id), {**files, MANIFEST: write_manifest(manifest)}, marker=MANIFEST)
        # If this process was suspended, it may have written after the purge erased the stage: check again.
        if overtaken := is_overtaken(store, job):
            store.delete(stage_folder(job.stage_id))
    # No rank may start a child of this stage before the stage is published.
    if group.any(overtaken):
        raise StageStopped(job.stage_id)
    return StageResult(
        stage_id=job.stage_id,
        adapter_sha256=manifest.adapter_sha256,
        steps=manifest.steps,
        records=manifest.records,
        tokens=manifest.tokens,
        first_loss=trained.losses[0] if trained.losses else None,
        last_loss=trained.losses[-1] if trained.losses else None,
        seconds=seconds,
    )


def check_tensors(stage_id: str, tensors: Mapping[str, Tensor], expected: Sequence[str]) -> None:
    """Raise TrainError unless `tensors` are finite and have exactly the names `expected`."""
    odd = sorted(set(tensors) ^ set(expected))
    if odd:
        raise TrainError(f"stage {stage_id} has missing or unexpected tensors: {odd[:3]}", "report this bug")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainError(
                f"stage {stage_id}: {name} is not finite after training; nothing was published",
                "lower optimizer.lr, raise optimizer.warmup, or set optimizer.grad_clip",
            )


def peft_config(modules: Sequence[str], config: Config, task: TaskModel) -> dict[str, Any]:
    """The adapter_config.json for exactly these modules (full paths), as PEFT would write it."""
    return {
        "peft_type": "LORA",
        "task_type": task.peft_task,
        "base_model_name_or_path": config.model.path,
        "revision": config.model.revision,
        "inference_mode": True,
        "r": config.lora.rank,
        "lora_alpha": config.lora.alpha,
        "lora_dropout": config.lora.dropout,
        "use_rslora": config.lora.use_rslora,
        "target_modules": sorted(modules),
        "bias": "none",
    }


def versions(quantised: bool, images: bool = False) -> dict[str, str]:
    """The software versions that the bits of a stage may depend on, including our own."""
    others = (*(("bitsandbytes",) if quantised else ()), *(("pillow",) if images else ()))
    found = {name: _installed(name) for name in (*_PACKAGES, *others)}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found | {"python": platform.python_version(), "s3t_ray": __version__}


@cache
def _installed(package: str) -> str:
    return version(package)  # parses the package's metadata: 3 ms each, a fifth of the smallest stage together


def machine(device: torch.device) -> dict[str, str]:
    """The hardware and operating system that the bits of a stage may depend on."""
    found = {
        "device": device.type,
        "cpu": _cpu_model(),
        "cpu_id": _cpu_id(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "libc": "".join(platform.libc_ver()),
        "system": platform.platform(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["compute_capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
        found["cudnn"] = str(torch.backends.cudnn.version())
        found["driver"] = " ".join(_lines_after(Path("/proc/driver/nvidia/version"), "NVRM version"))
    return found


def _cpu_model() -> str:
    names = _lines_after(Path("/proc/cpuinfo"), "model name")
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_id() -> str:
    """CPU family, model and stepping. On virtual machines, one model name can cover CPUs that need other kernels."""
    fields = ("vendor_id", "cpu family", "model\t", "stepping", "CPU implementer", "CPU part", "CPU revision")
    found = {field.strip(): lines[0] for field in fields if (lines := _lines_after(Path("/proc/cpuinfo"), field))}
    return " ".join(f"{name} {value}" for name, value in found.items()) or platform.machine()


def _lines_after(file: Path, key: str) -> list[str]:
    if not file.exists():
        return []
    return [line.partition(":")[2].strip() for line in file.read_text().splitlines() if line.startswith(key)]


def _safetensors(tensors: Mapping[str, Tensor], names: Sequence[str]) -> bytes:
    """Serialize tensors to bytes that do not depend on their order."""
    return safetensors.torch.save({name: tensors[name].contiguous() for name in sorted(names)}, {"format": "pt"})


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
