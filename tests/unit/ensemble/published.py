"""Published stages made by hand: random adapters that PEFT itself saved, with manifests, in a local store.

Also the slow, obvious reference: one PEFT model at a time, adapters merged, logits averaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save
from torch import Tensor
from transformers import AutoModelForCausalLM

from s3t_ray.config.schema import Config
from s3t_ray.store.manifest import write_manifest
from s3t_ray.store.store import Store
from tests.fakes.manifests import untrained_manifest

RANK, ALPHA = 4, 8.0
MODULES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
FUSED = ("self_attn.qkv_proj", "mlp.gate_up_proj")
"""Phi-3's."""


def config_for(base: Path, shards: int, slices: int, per_group: int, **task: object) -> Config:
    return Config.model_validate(
        {
            "name": "served",
            "shards": shards,
            "slices": slices,
            "budget": 1,
            "model": {"path": str(base)},
            "task": task,
            "data": {"path": "unused.jsonl"},
            "lora": {"rank": RANK, "alpha": ALPHA, "layers_per_group": per_group},
            "engine": {"hidden_states": "recompute"},
            "storage": {"uri": "unused"},
        }
    )


def publish_stage(
    store: Store, base: Path, name: str, shard: int, parents: Sequence[str], layers: Sequence[int], seed: int
) -> None:
    """A stage whose adapter changes every one of `layers` of the text model at `base`, much."""
    plain = AutoModelForCausalLM.from_pretrained(base)
    present = {name for name, _ in plain.named_modules()}
    targets = [f"model.layers.{layer}.{module}" for layer in layers for module in (*MODULES, *FUSED)]
    targets = [name for name in targets if name in present]
    settings = LoraConfig(r=RANK, lora_alpha=ALPHA, use_rslora=True, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(plain, settings)
    generator = torch.Generator().manual_seed(seed)
    for key, weight in model.named_parameters():
        if "lora_" in key:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2
    folder = base.parent / "peft" / name
    model.save_pretrained(folder)
    files = {file: (folder / file).read_bytes() for file in ("adapter_model.safetensors", "adapter_config.json")}
    publish_files(store, name, shard, parents, files)


def publish_files(store: Store, name: str, shard: int, parents: Sequence[str], files: dict[str, bytes]) -> None:
    """Any files as a stage, with the manifest that vouches for them."""
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
    manifest = untrained_manifest(name, digests, parents, shard=shard)
    store.publish(f"stages/{name}", {**files, "manifest.json": write_manifest(manifest)}, "manifest.json")


@lru_cache(maxsize=16)
def merged(base: Path, chain: tuple[str, ...]) -> torch.nn.Module:
    """The base with the adapters of `chain` merged by PEFT, one after the other."""
    model = AutoModelForCausalLM.from_pretrained(base)
    for name in chain:
        model = PeftModel.from_pretrained(model, base.parent / "peft" / name).merge_and_unload()
    return model.eval()


@torch.inference_mode()
def slow_logits(base: Path, chains: Sequence[tuple[str, ...]], ids: Sequence[int]) -> Tensor:
    """Mean of the logits [T, V] of each chain's model, computed alone."""
    return torch.stack([merged(base, chain)(input_ids=torch.tensor([list(ids)])).logits[0] for chain in chains]).mean(0)


def tensors_file(tensors: dict[str, Tensor]) -> bytes:
    return save(tensors, {"format": "pt"})
