"""Publishes stages with random adapters, as training would: for measurements where the model's answers do not matter.

Either chains in a store without a run or, with `RandomWorkers`, all stages that a run's scheduler requests.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from transformers import AutoConfig

from s3t_ray.ledger.values import RunningStage
from s3t_ray.run.run import Run
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.store.layout import MANIFEST, stage_folder
from s3t_ray.store.manifest import ADAPTER_CONFIG, ADAPTER_FILE, Manifest, SliceLearned, write_manifest
from s3t_ray.store.seal import seal
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob, StageResult


def publish_random_stages(
    run: Path, base: Path, shards: int, slices: int, per_group: int, rank: int
) -> dict[int, tuple[str, ...]]:
    """Publish chains of `slices` stages for each shard, on all linear layers of a Llama. Returns them by shard."""
    config = AutoConfig.from_pretrained(base)
    store = Store.open(str(run))
    chains: dict[int, tuple[str, ...]] = {}
    dice = np.random.default_rng(0)
    for shard in range(shards):
        chain: tuple[str, ...] = ()
        for depth in range(1, slices + 1):
            weights = _weights(config, depth, per_group, rank, dice)
            stage = hashlib.sha256(f"{shard}/{depth}".encode()).hexdigest()
            learned = tuple(SliceLearned(index=index, digest="d") for index in range(depth))
            manifest = _manifest(stage, shard, learned, chain)
            _publish(store, manifest, weights, rank)
            chain = (*chain, stage)
        chains[shard] = chain
    return chains


class RandomWorkers:
    """Worker groups that publish stages immediately, with random adapters (see `interfaces.WorkerGroups`)."""

    def __init__(self, run: Run, groups: int) -> None:
        self._store = run.store
        self._lora = run.config.lora
        self._base = AutoConfig.from_pretrained(run.base)
        self._groups = groups
        self._jobs: dict[int, StageJob] = {}
        self._dice = np.random.default_rng(0)

    def free(self) -> tuple[int, ...]:
        return tuple(group for group in range(self._groups) if group not in self._jobs)

    def submit(self, group: int, job: StageJob) -> None:
        self._jobs[group] = job

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        done = tuple(Finished(group, job.stage_id, result=self._made(job)) for group, job in self._jobs.items())
        self._jobs.clear()
        return done

    def running(self) -> tuple[RunningStage, ...]:
        return ()

    def stop(self, stage_id: str) -> None:
        pass

    def close(self) -> None:
        self._jobs.clear()

    def _made(self, job: StageJob) -> StageResult:
        weights = _weights(self._base, job.depth, self._lora.layers_per_group, self._lora.rank, self._dice)
        learned = tuple(SliceLearned(index=part.slice, digest=part.digest) for part in job.slices)
        manifest = _manifest(job.stage_id, job.shard, learned, job.parents, job.recipe_digest, job.base_digest)
        adapter = _publish(self._store, manifest, weights, self._lora.rank, job.seal_key)
        return StageResult(job.stage_id, adapter, 0, 0, 0, None, None, 0.0)


def _weights(config: Any, depth: int, per_group: int, rank: int, dice: np.random.Generator) -> dict[str, np.ndarray]:
    """A random adapter of the layer group at this depth, counted from the top; on all linear layers of a Llama."""
    size = config.hidden_size
    keys = size * config.num_key_value_heads // config.num_attention_heads
    shapes = {
        "self_attn.q_proj": (size, size),
        "self_attn.k_proj": (size, keys),
        "self_attn.v_proj": (size, keys),
        "self_attn.o_proj": (size, size),
        "mlp.gate_proj": (size, config.intermediate_size),
        "mlp.up_proj": (size, config.intermediate_size),
        "mlp.down_proj": (config.intermediate_size, size),
    }
    top = config.num_hidden_layers
    weights = {}
    for layer in range(top - depth * per_group, top - (depth - 1) * per_group):
        for module, (inside, outside) in shapes.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            weights[f"{name}.lora_A.weight"] = dice.normal(size=(rank, inside), scale=0.01).astype(np.float32)
            weights[f"{name}.lora_B.weight"] = dice.normal(size=(outside, rank), scale=0.01).astype(np.float32)
    return weights


def _manifest(
    stage: str,
    shard: int,
    slices: tuple[SliceLearned, ...],
    parents: tuple[str, ...],
    recipe: str = "r",
    base: str = "b",
) -> Manifest:
    """The manifest of a stage, still without its files."""
    return Manifest(
        stage_id=stage,
        shard=shard,
        slices=slices,
        parents=parents,
        recipe_digest=recipe,
        base_digest=base,
        adapter_sha256="",
        files={},
        losses=(),
        steps=0,
        records=0,
        unlabelled=0,
        tokens=0,
        seconds=0.0,
        versions={},
        machine={},
    )


def _publish(
    store: Store, manifest: Manifest, weights: dict[str, np.ndarray], rank: int, seal_key: str | None = None
) -> str:
    """Publish the stage. Returns the digest of its adapter."""
    settings = {"r": rank, "lora_alpha": 2 * rank, "use_rslora": True, "bias": "none"}
    files = {ADAPTER_FILE: save(weights), ADAPTER_CONFIG: json.dumps(settings).encode()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    whole = manifest.model_copy(update={"adapter_sha256": digests[ADAPTER_FILE], "files": digests})
    if seal_key is not None:
        whole = seal(whole, seal_key)
    folder = stage_folder(manifest.stage_id)
    store.publish(folder, {**files, MANIFEST: write_manifest(whole)}, marker=MANIFEST)
    return digests[ADAPTER_FILE]
