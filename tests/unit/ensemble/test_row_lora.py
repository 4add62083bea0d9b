"""Row-wise LoRA equals PEFT with the adapters merged, and an average equals the mean of separate models."""

from __future__ import annotations

from pathlib import Path

import torch

from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.loaded_stage import load_stage
from s3t_ray.ensemble.row_lora import BASE, applied, install_hooks, plan_rows
from tests.tiny import tiny_llama
from tests.unit.ensemble.conftest import Published
from tests.unit.ensemble.published import config_for, publish_stage, slow_logits

IDS = [5, 17, 250, 33, 8, 120, 77]


def test_each_row_is_the_model_of_its_chain(published: Published) -> None:
    base = FrozenBase(published.config, published.base)
    install_hooks(base)
    chains = [published.chain(0, 3), BASE, published.chain(1, 1), published.chain(1, 3), published.chain(0, 2)]
    names = {name: chain[: index + 1] for chain in chains for index, name in enumerate(chain)}
    stages = {name: load_stage(published.store, chain, base) for name, chain in names.items()}
    layout = plan_rows(base, stages, chains)
    with torch.inference_mode(), applied(layout):
        hidden = base.hidden(IDS)
    assert hidden.shape[0] == len(chains)
    for chain in chains:
        row = base.outputs(hidden[[layout.row(chain)]], [{}])
        torch.testing.assert_close(row, slow_logits(published.base, [chain], IDS), atol=1e-5, rtol=0)


def test_outside_the_block_the_base_is_itself(published: Published) -> None:
    base = FrozenBase(published.config, published.base)
    untouched = base.hidden(IDS)
    install_hooks(base)
    stage = load_stage(published.store, published.chain(0, 1), base)
    with applied(plan_rows(base, {stage.id: stage}, [(stage.id,)])):
        assert not torch.equal(base.hidden(IDS), untouched)
    assert torch.equal(base.hidden(IDS), untouched)


def test_layers_below_the_adapters_run_one_row(published: Published) -> None:
    base = FrozenBase(published.config, published.base)
    install_hooks(base)
    rows: dict[int, int] = {}
    for index, layer in enumerate(base.layers):
        layer.register_forward_hook(lambda _m, _a, out, index=index: rows.__setitem__(index, out.shape[0]))
    chains = [published.chain(0, 3), published.chain(0, 1), published.chain(1, 3)]
    names = {name: chain[: index + 1] for chain in chains for index, name in enumerate(chain)}
    stages = {name: load_stage(published.store, chain, base) for name, chain in names.items()}
    with applied(plan_rows(base, stages, chains)):
        base.hidden(IDS)
    # The base's own row goes on to where the last chain leaves it, and no further.
    assert rows == {0: 1, 1: 1, 2: 3, 3: 3, 4: 3, 5: 3, 6: 3, 7: 3}


def test_average_is_the_mean_of_separate_models(published: Published) -> None:
    ensemble = published.ensemble()
    for depths in [(3, 3), (3, 1), (0, 2), (1, 1)]:
        version = ensemble.live().version + 1
        ensemble.set_live(version, published.chains(*depths))
        answering = [published.chain(shard, depth) for shard, depth in enumerate(depths) if depth]
        expected = slow_logits(published.base, answering, IDS)
        torch.testing.assert_close(ensemble.logits(IDS), expected, atol=1e-5, rtol=0)
        assert not torch.allclose(expected, slow_logits(published.base, [BASE], IDS), atol=1e-2)


def test_all_dead_means_the_base_answers_and_says_so(published: Published) -> None:
    ensemble = published.ensemble()
    ensemble.set_live(1, published.chains(2, 2))
    ensemble.set_live(2, {})
    assert ensemble.live().depths == (0, 0)
    assert torch.equal(ensemble.logits(IDS), published.ensemble().logits(IDS))
    torch.testing.assert_close(ensemble.logits(IDS), slow_logits(published.base, [BASE], IDS), atol=1e-5, rtol=0)


def test_layer_3_is_not_layer_31(published: Published, tmp_path: Path) -> None:
    """In a model of 40 layers an adapter of layer 3 leaves layers 30 to 39 alone."""
    folder = tiny_llama(tmp_path / "base", layers=40, hidden=16, seed=3)
    config = config_for(folder, shards=1, slices=2, per_group=20)
    publish_stage(published.store, folder, "low", 0, [], [3], seed=5)
    publish_stage(published.store, folder, "high", 0, [], [31], seed=6)
    base = FrozenBase(config, folder)
    install_hooks(base)
    for name, layer in {"low": 3, "high": 31}.items():
        stage = load_stage(published.store, (name,), base)
        assert stage.lowest == layer
        assert {base.layer_of[module] for module in stage.deltas} == {layer}
        with torch.inference_mode(), applied(plan_rows(base, {name: stage}, [(name,)])):
            logits = base.outputs(base.hidden(IDS), [{}])
        torch.testing.assert_close(logits, slow_logits(folder, [(name,)], IDS), atol=1e-5, rtol=0)
