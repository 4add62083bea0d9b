"""The live set: shrinking at once and from memory, versions that only rise, damaged stages refused."""

from __future__ import annotations

import gc
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from s3t_ray.errors import ClusterError, ConfigError, S3TError, StageDamaged, StoreError
from s3t_ray.store.store import Store
from tests.unit.ensemble.conftest import Published
from tests.unit.ensemble.published import RANK, publish_files, slow_logits, tensors_file

IDS = [5, 17, 250, 33, 8, 120, 77]


@pytest.fixture
def copied(published: Published, tmp_path: Path) -> Published:
    """The published stages in a store of this test's own, to be damaged."""
    shutil.copytree(Path(published.store.uri), tmp_path / "run")
    return replace(published, store=Store.open(str(tmp_path / "run")))


def test_shrinking_gives_exactly_the_shallower_model(published: Published) -> None:
    ensemble, fresh = published.ensemble(), published.ensemble()
    ensemble.set_live(1, published.chains(3, 3))
    deep = ensemble.logits(IDS)
    assert ensemble.set_live(2, published.chains(1, 2)) == 2
    fresh.set_live(1, published.chains(1, 2))
    assert ensemble.live().depths == (1, 2)
    assert torch.equal(ensemble.logits(IDS), fresh.logits(IDS))
    assert not torch.allclose(ensemble.logits(IDS), deep, atol=1e-2)
    expected = slow_logits(published.base, [published.chain(0, 1), published.chain(1, 2)], IDS)
    torch.testing.assert_close(ensemble.logits(IDS), expected, atol=1e-5, rtol=0)


def test_shrinking_reads_nothing_from_the_store(copied: Published) -> None:
    ensemble = copied.ensemble()
    ensemble.set_live(1, copied.chains(3, 2))
    copied.store.delete("stages")
    assert ensemble.set_live(2, copied.chains(2, 0)) == 2
    torch.testing.assert_close(
        ensemble.logits(IDS), slow_logits(copied.base, [copied.chain(0, 2)], IDS), atol=1e-5, rtol=0
    )


def test_stages_that_left_are_freed(published: Published) -> None:
    ensemble = published.ensemble()
    ensemble.set_live(1, published.chains(2, 2))
    before = ensemble._service.live
    top, deep = (before.stages[name] for name in published.chain(0, 2))
    kept = weakref.ref(next(iter(top.deltas.values())).down)
    stack = next(iter(before.layout.stacks.values()))
    gone = [weakref.ref(next(iter(deep.deltas.values())).down), weakref.ref(stack.up)]
    del before, top, deep, stack
    ensemble.set_live(2, published.chains(1, 2))
    gc.collect()
    assert [weak() for weak in gone] == [None, None]
    assert kept() is not None


def test_growing_again_loads_from_the_store(published: Published) -> None:
    ensemble = published.ensemble()
    for version, depths in enumerate([(1, 0), (3, 2), (0, 0), (2, 3)], start=1):
        assert ensemble.set_live(version, published.chains(*depths)) == version
        assert ensemble.live().depths == depths
    expected = slow_logits(published.base, [published.chain(0, 2), published.chain(1, 3)], IDS)
    torch.testing.assert_close(ensemble.logits(IDS), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("depths", [(3, 3), (1, 0)])
def test_an_older_version_is_refused_and_changes_nothing(published: Published, depths: tuple[int, int]) -> None:
    """Refused loudly, above all when it was a prune: its sender must not take it for done."""
    ensemble = published.ensemble()
    ensemble.set_live(5, published.chains(1, 1))
    with pytest.raises(ClusterError, match="serves live set 5, but was given the older live set 4"):
        ensemble.set_live(4, published.chains(*depths))
    assert ensemble.live().depths == (1, 1)
    assert ensemble.live().version == 5


def test_the_same_version_again_is_carried_out(published: Published) -> None:
    ensemble = published.ensemble()
    for depths in [(2, 1), (2, 1), (1, 1)]:
        assert ensemble.set_live(5, published.chains(*depths)) == 5
        assert ensemble.live().depths == depths


def test_a_newer_version_that_comes_while_stages_load_wins(published: Published) -> None:
    """A prune does not wait for a slow load before it, and the load does not bring the stage back."""
    ensemble = published.ensemble()
    ensemble.set_live(1, published.chains(2, 1))

    class Slow:
        def read_bytes(self, path: str) -> bytes:
            ensemble.set_live(3, published.chains(1, 1))
            return published.store.read_bytes(path)

        def exists(self, path: str) -> bool:
            return published.store.exists(path)

        def size(self, path: str) -> int:
            return published.store.size(path)

    ensemble._store = Slow()  # type: ignore[assignment]
    assert ensemble.set_live(2, published.chains(3, 1)) == 3
    assert ensemble.live().depths == (1, 1)


def test_a_stage_under_other_parents_is_refused(published: Published) -> None:
    ensemble = published.ensemble()
    with pytest.raises(StoreError, match="trained on top of"):
        ensemble.set_live(1, {0: ("stage-0-1", "stage-1-2")})


def test_a_shard_that_does_not_exist_is_refused(published: Published) -> None:
    ensemble = published.ensemble()
    with pytest.raises(ConfigError, match=r"shards 0\.\.1"):
        ensemble.set_live(1, {2: ("stage-0-1",)})
    assert ensemble.live().version == 0


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_corrupted_file_is_refused(copied: Published, file: str) -> None:
    path = f"stages/{copied.chain(0, 2)[-1]}/{file}"
    data = bytearray(copied.store.read_bytes(path))
    data[-3] ^= 1
    copied.store.write_bytes(path, bytes(data))
    with pytest.raises(StoreError, match=f"stage-0-2 is damaged: stages/stage-0-2/{file} has sha256"):
        copied.ensemble().set_live(1, copied.chains(2, 0))


def test_an_unreadable_manifest_is_refused(copied: Published) -> None:
    copied.store.write_bytes("stages/stage-0-1/manifest.json", b"{}")
    with pytest.raises(StageDamaged, match="not a manifest"):
        copied.ensemble().set_live(1, copied.chains(1, 0))


def test_a_damaged_new_stage_leaves_no_stale_one_in_service(copied: Published) -> None:
    """A prune cannot fail, even when it comes with a stage that does; a second call loads the rest."""
    ensemble = copied.ensemble()
    ensemble.set_live(1, copied.chains(3, 1))
    path = "stages/stage-1-3/adapter_model.safetensors"
    whole = copied.store.read_bytes(path)
    copied.store.write_bytes(path, whole[:-1])
    with pytest.raises(S3TError):
        ensemble.set_live(2, copied.chains(1, 3))
    assert ensemble.live().version == 2
    assert ensemble.live().depths == (1, 1)
    copied.store.write_bytes(path, whole)
    assert ensemble.set_live(2, copied.chains(1, 3)) == 2
    assert ensemble.live().depths == (1, 3)


def _adapter(**weights: tuple[int, int]) -> bytes:
    return tensors_file({key.replace("__", "."): torch.ones(shape) for key, shape in weights.items()})


PLAIN = b'{"r": 4, "lora_alpha": 8.0, "use_rslora": true, "bias": "none"}'
Q = "base_model__model__model__layers__7__self_attn__q_proj__"


@pytest.mark.parametrize(
    ("adapter", "problem"),
    [
        (_adapter(**{f"{Q.replace('model__model__', 'model__')}lora_A__weight": (RANK, 32)}), "not linear modules"),
        (_adapter(**{f"{Q.replace('7', '8')}lora_A__weight": (RANK, 32)}), "layers.8"),
        (_adapter(**{"base_model__model__lm_head__lora_A__weight": (RANK, 32)}), "lm_head"),
        (_adapter(**{f"{Q}weight": (32, 32)}), "q_proj.weight"),
        (_adapter(), "none at all"),
        (_adapter(**{f"{Q}lora_A__weight": (RANK, 32)}), "incomplete or does not fit"),
        (_adapter(**{f"{Q}lora_A__weight": (RANK, 16), f"{Q}lora_B__weight": (32, RANK)}), "does not fit"),
        (_adapter(**{f"{Q}lora_A__weight": (RANK, 32), f"{Q}lora_B__weight": (16, RANK)}), "does not fit"),
        (_adapter(**{f"{Q}lora_A__weight": (RANK, 32), f"{Q}lora_B__weight": (32, 2)}), "does not fit"),
        (b"not safetensors", "not a safetensors file"),
    ],
)
def test_an_adapter_that_does_not_fit_the_base_is_refused(copied: Published, adapter: bytes, problem: str) -> None:
    publish_files(copied.store, "odd", 0, [], {"adapter_model.safetensors": adapter, "adapter_config.json": PLAIN})
    with pytest.raises(StoreError, match=problem):
        copied.ensemble().set_live(1, {0: ("odd",)})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (b'{"r": 4, "lora_alpha": 8.0, "use_dora": true}', "use_dora"),
        (b'{"r": 4, "lora_alpha": 8.0, "bias": "all"}', "bias"),
        (b'{"lora_alpha": 8.0}', "cannot be read"),
        (b'{"r": 0, "lora_alpha": 8.0}', "cannot be read"),
        (b"[]", "cannot be read"),
    ],
)
def test_settings_that_are_not_plain_lora_are_refused(copied: Published, settings: bytes, problem: str) -> None:
    whole = copied.store.read_bytes("stages/stage-0-1/adapter_model.safetensors")
    publish_files(copied.store, "odd", 0, [], {"adapter_model.safetensors": whole, "adapter_config.json": settings})
    with pytest.raises(StoreError, match=problem):
        copied.ensemble().set_live(1, {0: ("odd",)})


def test_two_stages_that_change_one_module_are_no_chain(copied: Published) -> None:
    files = {
        name: copied.store.read_bytes(f"stages/stage-0-1/{name}")
        for name in ("adapter_model.safetensors", "adapter_config.json")
    }
    publish_files(copied.store, "again", 0, ["stage-0-1"], files)
    with pytest.raises(StoreError, match="both change"):
        copied.ensemble().set_live(1, {0: ("stage-0-1", "again")})
