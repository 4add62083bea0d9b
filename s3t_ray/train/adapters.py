"""Reads the published adapters of a chain of stages, and exports a chain as a standard PEFT adapter.

In: the stage ids of one sequence, depth 1 first. Out: tensors by PEFT name, checked against the manifests. A tensor
whose bytes differ from those published is never returned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from s3t_ray.errors import TrainError
from s3t_ray.store.manifest import ADAPTER_CONFIG, ADAPTER_FILE, HEAD_FILE, Manifest
from s3t_ray.store.published_stage import PublishedStage
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob

Isolation = Literal["layers", "none"]
"""The config's `lora.isolation`."""

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Chain:
    """The adapters of stages 1..depth combined: the model of a sequence at that depth."""

    manifests: tuple[Manifest, ...]  # depth 1 first
    tensors: dict[str, Tensor]  # active LoRA tensors of all groups, by PEFT name, float32
    config: dict[str, Any]  # PEFT's adapter_config, with the target modules of all groups
    head: dict[str, Tensor]  # task head of the deepest stage, by parameter name; empty if there is none


def load_chain(store: Store, stage_ids: Sequence[str], isolation: Isolation = "layers") -> Chain:
    """Read and check the stages of one chain.

    `isolation` is the run's `lora.isolation`. With `none`, every stage holds all tensors and those of the last stage
    apply. Raises TrainError if a stage does not belong to the chain, StageDamaged if its bytes differ from those
    published.
    """
    manifests: list[Manifest] = []
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    targets: list[str] = []
    head: dict[str, Tensor] = {}
    for stage_id in stage_ids:
        stage = PublishedStage.open(store, stage_id)
        manifest = stage.manifest
        _check_follows(manifest, manifests)
        manifests.append(manifest)
        own = safetensors.torch.load(stage.read(ADAPTER_FILE))
        if isolation == "none":
            tensors, targets = {}, []
        twice = sorted(own.keys() & tensors.keys())
        if twice:
            raise TrainError(
                f"stage {stage_id} and a parent both hold {twice[0]}", "purge the chain and train it again"
            )
        tensors |= own
        config = json.loads(stage.read(ADAPTER_CONFIG))
        targets += config["target_modules"]
        if HEAD_FILE in manifest.files:
            head = safetensors.torch.load(stage.read(HEAD_FILE))
    return Chain(tuple(manifests), tensors, config | {"target_modules": sorted(targets)}, head)


def load_parents(store: Store, job: StageJob, names: Sequence[str], isolation: Isolation = "layers") -> Chain:
    """The adapters of the job's parent stages. Raises TrainError unless they hold exactly the tensors `names`."""
    if len(job.parents) != job.depth - 1:
        raise TrainError(
            f"stage {job.stage_id} has depth {job.depth} but {len(job.parents)} parents",
            "pass stages 1..depth-1 of its sequence as parents",
        )
    chain = load_chain(store, job.parents, isolation)
    for manifest in chain.manifests:
        theirs = (manifest.shard, manifest.recipe_digest, manifest.base_digest)
        if theirs != (job.shard, job.recipe_digest, job.base_digest):
            raise TrainError(
                f"parent {manifest.stage_id} and stage {job.stage_id} differ in shard, recipe or base model",
                "train the parents of this stage with this recipe first",
            )
    learned = [(piece.index, piece.digest) for manifest in chain.manifests[-1:] for piece in manifest.slices]
    if learned != [(piece.slice, piece.digest) for piece in job.slices[:-1]]:
        raise TrainError(
            f"the parent of stage {job.stage_id} was not trained on exactly the stage's slices before its last",
            "train the parents of this stage on these slices first",
        )
    if sorted(chain.tensors) != sorted(names):
        raise TrainError(
            f"the parents of stage {job.stage_id} do not hold exactly the layer groups above it",
            "purge the parents and train them again",
        )
    return chain


def export_adapter(store: Store, stage_ids: Sequence[str], out: Path, isolation: Isolation = "layers") -> Path:
    """Write the chain to folder `out` as one PEFT adapter that PeftModel.from_pretrained loads; returns `out`.

    A task head is exported as PEFT's `modules_to_save`. The scale is folded into `lora_alpha` instead of setting the
    rsLoRA flag: some servers ignore that flag and would scale the adapter by a factor of sqrt(rank) too little.
    Raises TrainError if `stage_ids` is empty or a stage does not belong to the chain.
    """
    if not stage_ids:
        raise TrainError("an export needs at least one stage", "choose a sequence with a live depth of 1 or more")
    chain = load_chain(store, stage_ids, isolation)
    tensors = dict(chain.tensors)
    config = _plain_scale(chain.config)
    if chain.head:
        config["modules_to_save"] = sorted({name.split(".")[0] for name in chain.head})
        tensors |= {f"base_model.model.{name}": value for name, value in chain.head.items()}
    return _write(out, tensors, config)


def export_merged_adapter(
    store: Store, chains: Sequence[Sequence[str]], out: Path, isolation: Isolation = "layers"
) -> Path:
    """Write the mean of several chains to folder `out` as one PEFT adapter; returns `out`.

    Its rank is the sum of their ranks: the LoRA matrices are concatenated, so the update is exactly the mean of the
    chains' updates. The ensemble computes something else: it averages the outputs of the models. Raises TrainError
    for chains with a task head, which cannot be merged this way.
    """
    loaded = [load_chain(store, chain, isolation) for chain in chains]
    if any(chain.head for chain in loaded):
        raise TrainError("a model with a task head cannot be merged", "export each shard separately")
    modules = sorted({name.partition(".lora_")[0] for chain in loaded for name in chain.tensors})
    tensors: dict[str, Tensor] = {}
    for module in modules:
        shape = next(chain for chain in loaded if f"{module}{_DOWN}" in chain.tensors).tensors
        downs, ups = [], []
        for chain in loaded:
            config = _plain_scale(chain.config)
            down = chain.tensors.get(f"{module}{_DOWN}", torch.zeros_like(shape[f"{module}{_DOWN}"]))
            up = chain.tensors.get(f"{module}{_UP}", torch.zeros_like(shape[f"{module}{_UP}"]))
            downs.append(down)
            ups.append(up * (config["lora_alpha"] / config["r"] / len(loaded)))
        tensors[f"{module}{_DOWN}"], tensors[f"{module}{_UP}"] = torch.cat(downs, 0), torch.cat(ups, 1)
    rank = sum(chain.config["r"] for chain in loaded)
    targets = sorted({target for chain in loaded for target in chain.config["target_modules"]})
    config = _plain_scale(loaded[0].config) | {"r": rank, "lora_alpha": rank, "target_modules": targets}
    return _write(out, tensors, config)


def _plain_scale(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with the same scale expressed as alpha / r, without rsLoRA."""
    if not config.get("use_rslora"):
        return dict(config)
    alpha = config["lora_alpha"] * math.sqrt(config["r"])
    return config | {"use_rslora": False, "lora_alpha": int(alpha) if alpha == int(alpha) else alpha}


def _write(out: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    (out / ADAPTER_FILE).write_bytes(safetensors.torch.save(contiguous, {"format": "pt"}))
    (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return out


def _check_follows(manifest: Manifest, above: Sequence[Manifest]) -> None:
    """Raise TrainError unless the stage comes directly below `above` in one chain."""
    ids = tuple(parent.stage_id for parent in above)
    problem = None
    if manifest.parents != ids:
        problem = f"has parents {list(manifest.parents)}, not {list(ids)}"
    elif manifest.depth != len(above) + 1:
        problem = f"was trained on {manifest.depth} slices, but is at depth {len(above) + 1} of its chain"
    elif above and (manifest.shard, manifest.recipe_digest, manifest.base_digest) != (
        above[-1].shard,
        above[-1].recipe_digest,
        above[-1].base_digest,
    ):
        problem = "differs from its parent in shard, recipe or base model"
    elif above and manifest.slices[:-1] != above[-1].slices:
        problem = "was not trained on the slices of its parent"
    if problem:
        raise TrainError(f"stage {manifest.stage_id} {problem}", "pass the ids of one chain, depth 1 first")
