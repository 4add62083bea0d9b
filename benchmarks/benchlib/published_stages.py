"""Stages with random adapters, published as training publishes them: for measurements in which words do not matter."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from transformers import AutoConfig

from s3t_ray.store.layout import MANIFEST, stage_folder
from s3t_ray.store.manifest import ADAPTER_CONFIG, ADAPTER_FILE, Manifest, SliceLearned, write_manifest
from s3t_ray.store.store import Store


def publish_random_stages(
    run: Path, base: Path, shards: int, slices: int, per_group: int, rank: int
) -> dict[int, tuple[str, ...]]:
    """Chains of `slices` stages for each shard, on all linear layers of a Llama; the chains by shard."""
    config = AutoConfig.from_pretrained(base)
    store = Store.open(str(run))
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
    chains: dict[int, tuple[str, ...]] = {}
    dice = np.random.default_rng(0)
    for shard in range(shards):
        chain: tuple[str, ...] = ()
        for depth in range(1, slices + 1):
            top = config.num_hidden_layers
            weights = {}
            for layer in range(top - depth * per_group, top - (depth - 1) * per_group):
                for module, (inside, outside) in shapes.items():
                    name = f"base_model.model.model.layers.{layer}.{module}"
                    weights[f"{name}.lora_A.weight"] = dice.normal(size=(rank, inside), scale=0.01).astype(np.float32)
                    weights[f"{name}.lora_B.weight"] = dice.normal(size=(outside, rank), scale=0.01).astype(np.float32)
            stage = hashlib.sha256(f"{shard}/{depth}".encode()).hexdigest()
            _publish(store, stage, shard, chain, weights, rank)
            chain = (*chain, stage)
        chains[shard] = chain
    return chains


def _publish(
    store: Store, stage: str, shard: int, parents: tuple[str, ...], weights: dict[str, np.ndarray], rank: int
) -> None:
    settings = {"r": rank, "lora_alpha": 2 * rank, "use_rslora": True, "bias": "none"}
    files = {ADAPTER_FILE: save(weights), ADAPTER_CONFIG: json.dumps(settings).encode()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = Manifest(
        stage_id=stage,
        shard=shard,
        slices=tuple(SliceLearned(index=index, digest="d") for index in range(len(parents) + 1)),
        parents=parents,
        recipe_digest="r",
        base_digest="b",
        adapter_sha256=digests[ADAPTER_FILE],
        files=digests,
        losses=(),
        steps=0,
        records=0,
        unlabelled=0,
        tokens=0,
        seconds=0.0,
        versions={},
        machine={},
    )
    store.publish(stage_folder(stage), {**files, MANIFEST: write_manifest(manifest)}, marker=MANIFEST)
