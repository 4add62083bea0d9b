"""Checks a trained stage and publishes it: adapter, PEFT config, task head, and the manifest last.

In: whole tensors by name. Out: the stage's folder in the store. Must never publish a tensor that is not finite, or
one of a layer outside the stage's group.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from s3t_ray.config.schema import Config
from s3t_ray.errors import TrainError
from s3t_ray.train.manifest import ADAPTER_CONFIG, ADAPTER_FILE, HEAD_FILE

_PACKAGES = ("torch", "transformers", "peft", "deepspeed", "safetensors", "numpy")


def check_tensors(stage_id: str, tensors: Mapping[str, Tensor], expected: Sequence[str]) -> None:
    """TrainError unless `tensors` are finite and named exactly as `expected`."""
    odd = sorted(set(tensors) ^ set(expected))
    if odd:
        raise TrainError(f"stage {stage_id} has tensors too many or too few: {odd[:3]}", "report this: it is a bug")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainError(
                f"stage {stage_id}: {name} is not finite after training; nothing was published",
                "lower optimizer.lr, raise optimizer.warmup, or set optimizer.grad_clip",
            )


def stage_files(
    tensors: Mapping[str, Tensor], head: Mapping[str, Tensor], modules: Sequence[str], config: Config
) -> dict[str, bytes]:
    """The files of a stage but for its manifest. The weights' bytes depend on the tensors alone."""
    files = {
        ADAPTER_FILE: safetensors.torch.save(_sorted(tensors), {"format": "pt"}),
        ADAPTER_CONFIG: (json.dumps(peft_config(modules, config), indent=2, sort_keys=True) + "\n").encode(),
    }
    if head:
        files[HEAD_FILE] = safetensors.torch.save(_sorted(head), {"format": "pt"})
    return files


def peft_config(modules: Sequence[str], config: Config) -> dict[str, Any]:
    """adapter_config.json for exactly these modules (full paths), as PEFT itself would write it."""
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if config.task.kind == "classification" else "CAUSAL_LM",
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


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def versions() -> dict[str, str]:
    """What the bits of a stage may depend on, in software."""
    found = {name: version(name) for name in _PACKAGES}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found | {"python": platform.python_version()}


def machine(device: torch.device) -> dict[str, str]:
    """What the bits of a stage may depend on, in hardware: a replay elsewhere reports a distance, not equality."""
    found = {
        "device": device.type,
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
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


def _lines_after(file: Path, key: str) -> list[str]:
    if not file.exists():
        return []
    return [line.partition(":")[2].strip() for line in file.read_text().splitlines() if line.startswith(key)]


def _sorted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name].contiguous() for name in sorted(tensors)}
