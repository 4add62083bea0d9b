"""Loads a published stage for serving and checks it before it can answer.

In: the store and a stage id. Out: a `LoadedStage` with tensors on the serving device. Raises StoreError if
the bytes do not match the manifest, if the stage was trained on different ancestors, or if the adapter does
not fit the base; an adapter whose names match no module would otherwise be ignored silently. Never writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from s3t_ray.ensemble.answers import Chain
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.errors import StoreError
from s3t_ray.store.manifest import ADAPTER_CONFIG, ADAPTER_FILE, HEAD_FILE
from s3t_ray.store.published_stage import PublishedStage
from s3t_ray.store.store import Store

_PREFIX = "base_model.model."  # PEFT's prefix of the module's name
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_REPAIR = "delete the stage's folder and run `s3t train` to train the stage again"


@dataclass(frozen=True)
class LoraDelta:
    """An adapter's update to the output of one linear module: `x @ down @ up`."""

    down: Tensor  # [in, r]: A transposed
    up: Tensor  # [r, out]: B transposed, times the scaling


@dataclass(frozen=True)
class LoadedStage:
    """One stage, ready to serve."""

    id: str
    deltas: Mapping[str, LoraDelta]  # by name of the base's linear module
    lowest: int  # the lowest layer that it changes
    head: Mapping[str, Tensor]  # the stage's task head; empty if the task has none


def load_stage(store: Store, chain: Chain, base: FrozenBase) -> LoadedStage:
    """Load the last stage of `chain`. The other stages must be its ancestors.

    Raises StageDamaged if its bytes are not those published, StoreError if it does not fit the chain or the base.
    """
    stage_id = chain[-1]
    stage = PublishedStage.open(store, stage_id)
    manifest = stage.manifest
    if manifest.parents != chain[:-1]:
        raise StoreError(
            f"stage {stage_id} cannot be served on top of {list(chain[:-1])}: it was trained on top of "
            f"{list(manifest.parents)}",
            "pass the stages of one chain, depth 1 first",
        )
    scaling = _scaling(stage.read(ADAPTER_CONFIG), stage_id)
    weights = _tensors(stage.read(ADAPTER_FILE), stage_id, ADAPTER_FILE)
    deltas = _deltas(weights, scaling, base, stage_id)
    head = _head(stage, base) if base.head_shapes else {}
    return LoadedStage(stage_id, deltas, min(base.layer_of[name] for name in deltas), head)


def _tensors(data: bytes, stage_id: str, name: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_safetensors(data)
    except (SafetensorError, ValueError) as error:
        raise StoreError(f"stage {stage_id}: {name} is not a safetensors file: {error}", _REPAIR) from error
    return tensors


def _scaling(settings: bytes, stage_id: str) -> float:
    """The adapter's scale, from PEFT's settings: alpha / r, or alpha / sqrt(r) with rsLoRA."""
    try:
        told = json.loads(settings)
        rank, alpha, rs_lora = told["r"], told["lora_alpha"], told.get("use_rslora", False)
        unknown = [name for name in ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern") if told.get(name)]
        if told.get("bias", "none") != "none":
            unknown.append("bias")
        scaling = float(alpha) / (math.sqrt(rank) if rs_lora else rank)
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise StoreError(f"stage {stage_id}: {ADAPTER_CONFIG} cannot be read: {error!r}", _REPAIR) from error
    if unknown:
        raise StoreError(f"stage {stage_id}: {ADAPTER_CONFIG} sets {unknown}, which is not plain LoRA", _REPAIR)
    return scaling


def _head(stage: PublishedStage, base: FrozenBase) -> dict[str, Tensor]:
    """The stage's task head, in the precision of the base, as autocast used it in training."""
    head = _tensors(stage.read(HEAD_FILE), stage.manifest.stage_id, HEAD_FILE)
    if {name: tensor.shape for name, tensor in head.items()} != base.head_shapes:
        raise StoreError(
            f"stage {stage.manifest.stage_id}: {HEAD_FILE} holds {sorted(head)}, but a task head of "
            f"{base.task.task.head_rows} rows has {sorted(base.head_shapes)} (names and shapes must agree)",
            "serve it with the base model and the labels that it was trained with",
        )
    return {name: tensor.to(base.device, base.dtype) for name, tensor in head.items()}


def _deltas(weights: Mapping[str, Tensor], scaling: float, base: FrozenBase, stage_id: str) -> dict[str, LoraDelta]:
    names = {key.removesuffix(_DOWN).removesuffix(_UP).removeprefix(_PREFIX) for key in weights}
    strangers = sorted(name for name in names if name not in base.linears)
    if strangers or not names:
        listed = f"{', '.join(strangers[:8])}{', ...' if len(strangers) > 8 else ''}" if strangers else "none at all"
        raise StoreError(
            f"stage {stage_id}: {len(strangers)} of the {len(names)} modules in its adapter are not linear modules in "
            f"the base model's layers: {listed}",
            "serve it with the base model that it was trained on",
        )
    deltas = {}
    for name in sorted(names):
        module = base.linears[name]
        a, b = weights.get(f"{_PREFIX}{name}{_DOWN}"), weights.get(f"{_PREFIX}{name}{_UP}")
        if a is None or b is None or a.shape != (b.shape[-1], module.in_features) or len(b) != module.out_features:
            raise StoreError(
                f"stage {stage_id}: its adapter for {name} is incomplete or does not fit a module with "
                f"{module.in_features} inputs and {module.out_features} outputs",
                "serve it with the base model that it was trained on",
            )
        # Use the precision of the base, as autocast did in training. Scale before rounding.
        deltas[name] = LoraDelta(
            a.T.to(base.device, base.dtype).contiguous(),
            (b.float() * scaling).T.to(base.device, base.dtype).contiguous(),
        )
    return deltas
