"""Reading published chains: manifests and adapters made by hand, without training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from s3t_ray.errors import StageDamaged, TrainError
from s3t_ray.store.manifest import Manifest, SliceLearned, write_manifest
from s3t_ray.store.published_stage import read_manifest
from s3t_ray.store.store import Store
from s3t_ray.train.adapters import export_adapter, load_chain


def put_stage(store: Store, name: str, slices: tuple[int, ...], parents: tuple[str, ...], **changes: Any) -> None:
    """A published stage that adapts one module of one layer; `changes` override its manifest."""
    module = f"model.layers.{9 - len(slices)}.mlp.up_proj"
    tensors = {
        f"base_model.model.{changes.pop('module', module)}.lora_A.weight": torch.full((1, 2), float(len(slices)))
    }
    adapter = safetensors.torch.save(tensors)
    config = json.dumps({"peft_type": "LORA", "r": 1, "target_modules": [module]}).encode()
    files = {"adapter_model.safetensors": adapter, "adapter_config.json": config}
    if "head" in changes:
        files["head.safetensors"] = safetensors.torch.save({"classifier.bias": torch.tensor([changes.pop("head")])})
    values: dict[str, Any] = {
        "stage_id": name,
        "shard": 0,
        "slices": tuple(SliceLearned(index=index, digest=f"d{index}") for index in slices),
        "parents": parents,
        "recipe_digest": "r",
        "base_digest": "b",
        "adapter_sha256": hashlib.sha256(adapter).hexdigest(),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "losses": (1.5,),
        "steps": 1,
        "records": 2,
        "unlabelled": 0,
        "tokens": 30,
        "seconds": 0.5,
        "versions": {"torch": "2"},
        "machine": {"cpu": "x"},
    }
    manifest = Manifest(**(values | changes))
    store.publish(f"stages/{name}", {**files, "manifest.json": write_manifest(manifest)}, marker="manifest.json")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path / "run"))
    put_stage(store, "one", (4,), (), head=1.0)
    put_stage(store, "two", (4, 2), ("one",), head=2.0)
    return store


def test_a_manifest_survives_the_store(store: Store) -> None:
    manifest = read_manifest(store, "two")
    assert (manifest.depth, manifest.parents, manifest.losses) == (2, ("one",), (1.5,))
    assert Manifest.model_validate_json(write_manifest(manifest)) == manifest


def test_a_chain_holds_all_groups_and_the_deepest_head(store: Store) -> None:
    chain = load_chain(store, ("one", "two"))
    assert {name.split(".")[4] for name in chain.tensors} == {"8", "7"}
    assert chain.config["target_modules"] == ["model.layers.7.mlp.up_proj", "model.layers.8.mlp.up_proj"]
    assert chain.head["classifier.bias"].tolist() == [2.0]
    assert load_chain(store, ("one",)).head["classifier.bias"].tolist() == [1.0]
    assert load_chain(store, ()).tensors == {}


def test_an_export_carries_the_head_the_way_peft_does(store: Store, tmp_path: Path) -> None:
    out = export_adapter(store, ("one", "two"), tmp_path / "out")
    tensors = safetensors.torch.load_file(out / "adapter_model.safetensors")
    assert "base_model.model.classifier.bias" in tensors and len(tensors) == 3
    assert json.loads((out / "adapter_config.json").read_text())["modules_to_save"] == ["classifier"]
    with pytest.raises(TrainError, match="at least one stage"):
        export_adapter(store, (), tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parents": ()}, "has parents"),
        ({"slices": (4,)}, "was trained on 1 slices, but is at depth 2"),
        ({"slices": (3, 2)}, "was not trained on the slices of its parent"),
        ({"recipe_digest": "other"}, "differs from its parent in shard, recipe or base"),
        ({"shard": 1}, "differs from its parent in shard, recipe or base"),
        ({"module": "model.layers.8.mlp.up_proj"}, "and a parent both hold"),
        ({"stage_id": "three"}, "describes stage three"),
        ({"adapter_sha256": "0" * 64}, "adapter_model.safetensors has sha256"),
    ],
)
def test_a_stage_that_does_not_follow_is_refused(store: Store, changes: dict[str, Any], message: str) -> None:
    store.delete("stages/two")
    settings: dict[str, Any] = {"slices": (4, 2), "parents": ("one",)} | changes
    put_stage(store, "two", **settings)
    with pytest.raises((TrainError, StageDamaged), match=message):
        load_chain(store, ("one", "two"))


@pytest.mark.parametrize("name", ["adapter_config.json", "head.safetensors", "adapter_model.safetensors"])
def test_a_damaged_file_is_refused(store: Store, name: str) -> None:
    store.write_bytes(f"stages/one/{name}", store.read_bytes(f"stages/one/{name}") + b" ")
    with pytest.raises(StageDamaged, match=f"stages/one/{name}"):
        load_chain(store, ("one",))


def test_a_manifest_that_is_none_is_refused(store: Store) -> None:
    store.write_bytes("stages/one/manifest.json", b'{"stage_id": "one"}')
    with pytest.raises(StageDamaged, match="is not a manifest"):
        load_chain(store, ("one",))
