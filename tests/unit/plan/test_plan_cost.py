"""Costs: against known figures and against sums that walk every stage, token and layer."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.errors import ConfigError
from s3t_ray.plan.cost import healing_cost, plan_cost, stage_cost, storage_bytes, training_cost
from s3t_ray.plan.memory import EngineSetting, base_bytes, engine_setting, rank_memory
from s3t_ray.plan.orders import orders
from s3t_ray.plan.propose import A100_8, CARDS_24GB_4, H100_8, H200_1, Gpus, propose
from s3t_ray.plan.stages import ShardPlan, compare, plan_shard
from s3t_ray.plan.work import Work, count_stages, describe_work, lora_parameters

LLAMA_7B = ModelShape(layers=32, hidden=4096, intermediate=11008, heads=32, kv_heads=32, vocabulary=32000)
LLAMA_13B = ModelShape(layers=40, hidden=5120, intermediate=13824, heads=40, kv_heads=40, vocabulary=32000)


@pytest.fixture(scope="module")
def work(make_config: Callable[..., Config]) -> Work:
    """13B in bfloat16, five groups of 8 layers: the last reaches the bottom."""
    config = make_config(
        shards=5,
        slices=5,
        lora={"layers_per_group": 8, "rank": 32},
        optimizer={"epochs": 3},
        engine={"precision": "bfloat16"},
        workers={"gpus_per_rank": 1},
    )
    return describe_work(config, 2500, 200.0, 0.8, LLAMA_13B)


def _bare(work: Work, groups: int) -> Work:
    """The same with the layers split evenly, no head and hardly an adapter or attention: plain 2N per layer."""
    return replace(
        work,
        slices=groups,
        layers_per_group=work.shape.layers // groups,
        lora_parameters_per_layer=0,
        head_parameters=0,
        record_tokens=1.0,
    )


def test_stored_states_save_the_known_share_of_each_stage(work: Work) -> None:
    bare = _bare(work, 4)
    shares = [1 - stage_cost(bare, d, stored=True).flops / stage_cost(bare, d, stored=False).flops for d in range(1, 5)]
    assert shares == pytest.approx([0.60, 0.33, 0.14, 0.0], abs=0.01)
    cumulative = training_cost(bare, dict.fromkeys(range(1, 5), 1))
    full = training_cost(bare, dict.fromkeys(range(1, 5), 1), stored=False)
    assert 0.14 <= 1 - cumulative.flops / full.flops <= 0.20


def test_without_isolation_every_stage_trains_the_layers_of_all_groups(work: Work) -> None:
    """Of 40 layers, 4 groups of 8: the lowest 8 have no adapter, and their output is stored once."""
    four = replace(work, slices=4, stored_depths=(4,))
    rival = replace(four, isolated=False)
    assert [rival.boundary(depth) for depth in (1, 2, 3, 4)] == [8] * 4
    assert [rival.start_layer(depth) for depth in (1, 2, 3, 4)] == [8] * 4
    per_token = [stage_cost(rival, depth).flops / stage_cost(rival, depth).tokens for depth in (1, 2, 3, 4)]
    assert per_token == pytest.approx([per_token[0]] * 4)
    # The deepest stage of an isolated sequence runs through the same layers, and trains a quarter of them.
    deepest = stage_cost(four, 4)
    gradients = 2 * deepest.tokens * work.lora_parameters_per_layer * 24
    assert stage_cost(rival, 4).flops == pytest.approx(deepest.flops + gradients)
    assert rival.adapter_parameters() == 4 * four.adapter_parameters()
    setting = EngineSetting(2, "none", 0, 1, 4096, gradient_checkpointing=False)
    assert rank_memory(rival, setting).total > rank_memory(four, setting).total
    orders_by_shard = [[(0, 1, 2, 3)]] * 5
    cost, own = plan_cost(rival, orders_by_shard), plan_cost(four, orders_by_shard)
    assert cost.one_pass_flops == pytest.approx(own.one_pass_flops)
    # Only the boundary of the deepest stage is stored: each token once.
    tokens = storage_bytes(rival, orders_by_shard).hidden_states / (5120 * 2)
    assert tokens == pytest.approx(rival.training_tokens)


def test_lora_costs_about_four_n_a_token(work: Work) -> None:
    whole = stage_cost(work, 5, stored=False)
    weights = work.shape.layers * work.shape.layer_parameters + work.shape.head_parameters
    assert 1.0 < whole.flops / whole.tokens / (4 * weights) < 1.1


def test_a_stage_walks_its_layers(work: Work) -> None:
    for depth in (1, 3, 5):
        cost = stage_cost(work, depth)
        tokens = 3 * depth * 100 * 1.0 * 200  # epochs x slices x records per slice x tokens per record
        assert cost.tokens == pytest.approx(tokens)
        assert cost.labelled_tokens == pytest.approx(0.8 * tokens)
        boundary = 40 - 8 * depth
        slow = 0.0
        for layer in range(40):
            if layer < boundary:
                continue  # its output is stored
            forward = 2 * LLAMA_13B.layer_parameters + 4 * 5120 * 201 / 2
            backward = 2 * LLAMA_13B.layer_parameters + 8 * 5120 * 201 / 2
            adapter = 4 * work.lora_parameters_per_layer
            if layer < boundary + 8:
                adapter += 2 * work.lora_parameters_per_layer
            slow += tokens * (forward + backward + adapter)
        slow += 0.8 * tokens * 4 * LLAMA_13B.head_parameters
        assert cost.flops == pytest.approx(slow)
    checkpointed = replace(work, gradient_checkpointing=True)
    assert stage_cost(checkpointed, 2).recompute_flops == stage_cost(work, 2).forward_flops


def test_lora_counts_the_modules_it_is_given(make_config: Callable[..., Config]) -> None:
    def count(targets: object, shape: ModelShape = LLAMA_7B) -> int:
        lora = make_config(lora={"layers_per_group": 1, "rank": 2, "targets": targets}).lora
        return lora_parameters(lora, shape)

    assert count(["q_proj", "v_proj"]) == 2 * 2 * (4096 + 4096) == count(["query", "value"])
    assert count(["gate_proj"]) == 2 * (4096 + 11008)
    assert count("all-linear") == 2 * (4 * 8192 + 3 * (4096 + 11008))
    grouped = LLAMA_7B.model_copy(update={"kv_heads": 8})
    assert count(["k_proj"], grouped) == 2 * (4096 + 1024)


def test_shared_stages_count_once(work: Work, make_config: Callable[..., Config]) -> None:
    config = make_config(shards=5, slices=5, budget=10, kind="chains")
    by_shard = [orders(config, shard) for shard in range(5)]
    plans = [plan_shard(shard, each, dict.fromkeys(range(5), ""), "r") for shard, each in enumerate(by_shard)]
    stages = [stage for plan in plans for stage in plan.stages.values()]
    cost = plan_cost(work, by_shard)
    assert count_stages(by_shard).total() == cost.training.stages == len(stages) == 5 * 45
    assert cost.training.tokens == pytest.approx(sum(stage_cost(work, s.depth).tokens for s in stages))
    assert cost.training.flops == pytest.approx(sum(stage_cost(work, s.depth).flops for s in stages))
    assert cost.unshared.stages == 5 * 50 and cost.unshared.flops > cost.training.flops
    assert 0 < cost.saved_by_stored_states < 0.4


def test_hidden_states_are_computed_once_a_token_up_to_the_highest_boundary_that_needs_it(work: Work) -> None:
    cost = plan_cost(work, [((0, 1, 2, 3, 4),)] * 5)
    # The slice of stage 1 up to layer 32, that of stage 2 up to 24, and so on; the last one starts from the embeddings.
    layers = 32 + 24 + 16 + 8
    per_token = layers * (2 * LLAMA_13B.layer_parameters + 4 * 5120 * 201 / 2)
    assert cost.hidden_fill_flops == pytest.approx(500 * 200 * per_token)
    rotated = plan_cost(work, [tuple(tuple((start + at) % 5 for at in range(5)) for start in range(5))] * 5)
    assert rotated.hidden_fill_flops == pytest.approx(500 * 200 * per_token * 5 * 32 / layers)
    assert cost.flops == cost.training.flops + cost.hidden_fill_flops
    recomputing = replace(work, stored_depths=())
    assert plan_cost(recomputing, [((0, 1, 2, 3, 4),)]).hidden_fill_flops == 0


def test_healing_is_the_mean_over_every_slice_that_may_be_hit(work: Work, make_plan: Callable[..., ShardPlan]) -> None:
    by_shard = [((0, 1, 2, 3, 4), (0, 2, 1, 3, 4)), ((4, 3, 2, 1, 0), (1, 2, 3, 4, 0))]
    stages = tokens = 0.0
    for shard, each in enumerate(by_shard):
        plan = make_plan(each, shard=shard)
        for hit in range(5):
            digests = {s: f"d{s}" if s != hit else "changed" for s in range(5)}
            missing = compare(after := make_plan(each, shard=shard, digests=digests), plan.stages).missing
            stages += len(missing) / 10
            tokens += sum(stage_cost(work, after.stages[name].depth).tokens for name in missing) / 10
    healing = healing_cost(work, by_shard)
    assert healing.stages == pytest.approx(stages)
    assert healing.tokens == pytest.approx(tokens)


def test_storage(work: Work) -> None:
    by_shard = [((0, 1, 2, 3, 4), (1, 2, 3, 4, 0))] * 5
    found = storage_bytes(work, by_shard)
    assert found.adapters == 50 * 8 * work.lora_parameters_per_layer * 4
    # Slices that stages of depth 1, 2, 3, 4 learn; those of depth 5 start from the embeddings.
    assert found.hidden_states == (2 + 3 + 4 + 5) * 500 * 200 * 10_240
    assert found.total == found.adapters + found.hidden_states + found.rows
    assert storage_bytes(replace(work, stored_depths=()), by_shard).hidden_states == 0


def test_classification_trains_its_head_on_one_token_a_record(make_config: Callable[..., Config]) -> None:
    config = make_config(task={"kind": "classification", "labels": ["a", "b"]}, engine={"hidden_states": "recompute"})
    work = describe_work(config, 80, 50.0, 0.9, LLAMA_7B)
    cost = stage_cost(work, 1)
    assert cost.labelled_tokens == pytest.approx(cost.tokens / 50)
    assert cost.head_flops == pytest.approx(cost.labelled_tokens * 6 * 4096 * 4098)
    assert work.adapter_parameters() == 2 * work.lora_parameters_per_layer + 4096 * 4098


def test_long_records_are_cut_and_held_out_ones_left_out(make_config: Callable[..., Config]) -> None:
    config = make_config(shards=2, slices=4, task={"max_tokens": 64}, data={"path": "d.jsonl", "holdout": 0.25})
    work = describe_work(config, 800, 100.0, 1.0, LLAMA_7B)
    assert work.slice_records == pytest.approx(75)
    assert work.training_tokens == pytest.approx(600 * 64)


def test_impossible_sizes_are_refused(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="8 x 5 = 40"):
        describe_work(make_config(slices=8, lora={"layers_per_group": 5}), 1, 1.0, 1.0, LLAMA_7B)
    with pytest.raises(ConfigError, match="0 records"):
        describe_work(make_config(), 0, 1.0, 1.0, LLAMA_7B)


ALONE = EngineSetting(2, "none", 0, 1, 4096, gradient_checkpointing=False)


def test_memory_of_the_base() -> None:
    assert base_bytes(LLAMA_13B, ALONE) == 2 * LLAMA_13B.parameters  # 26 GB
    assert 25.5e9 < base_bytes(LLAMA_13B, ALONE) < 26.5e9
    eight, four = (base_bytes(LLAMA_13B, replace(ALONE, quantize=kind)) for kind in ("8bit", "4bit"))
    assert 13e9 < eight < 14e9 and 7.5e9 < four < 8.5e9
    split = replace(ALONE, zero_stage=3, ranks=4)
    whole = 2 * (2 * LLAMA_13B.layer_parameters + LLAMA_13B.head_parameters)
    assert base_bytes(LLAMA_13B, split) == pytest.approx(2 * LLAMA_13B.parameters / 4 + whole)


def test_memory_falls_with_what_is_meant_to_lower_it(work: Work) -> None:
    plain = rank_memory(work, ALONE)
    assert rank_memory(work, replace(ALONE, gradient_checkpointing=True)).activations < plain.activations / 5
    assert rank_memory(work, replace(ALONE, micro_batch_tokens=2048)).activations == pytest.approx(
        plain.activations / 2
    )
    trained, every = 8 * work.lora_parameters_per_layer, 40 * work.lora_parameters_per_layer
    by_zero = [rank_memory(work, replace(ALONE, zero_stage=z, ranks=4)).adapters for z in (0, 1, 2, 3)]
    assert by_zero == [
        4 * every + 12 * trained,
        4 * every + 4 * trained + 2 * trained,
        4 * every + trained + 2 * trained,
        every + trained + 2 * trained,
    ]
    assert plain.logits <= (1 << 24) * 8 and plain.total < 80e9
    eager = rank_memory(work, replace(ALONE, eager_attention=True))
    assert eager.activations - plain.activations == 40 * 4096 * 40 * 4096 * 4


def test_engine_setting_reads_the_config(make_config: Callable[..., Config]) -> None:
    config = make_config(
        engine={"precision": "bfloat16", "zero_stage": 2, "ranks": 2, "micro_batch_tokens": 512},
        workers={"gpus_per_rank": 1},
        model={"path": "m", "attention": "eager", "quantize": "8bit"},
    )
    assert engine_setting(config) == EngineSetting(2, "8bit", 2, 2, 512, False, eager_attention=True, on_gpu=True)
    on_cpu = engine_setting(make_config())
    assert (on_cpu.precision_bytes, on_cpu.on_gpu) == (4, False)


@pytest.mark.parametrize("gpus", [H200_1, H100_8, A100_8])
def test_large_cards_take_13b_alone_without_collectives(gpus: Gpus) -> None:
    found = propose(LLAMA_13B, gpus)
    assert (found.groups, found.ranks, found.zero_stage, found.quantize) == (gpus.count, 1, 0, "none")
    assert not found.gradient_checkpointing and found.micro_batch_tokens >= 4096
    assert found.headroom_bytes >= 0


def test_small_cards_take_13b_quantised_or_split() -> None:
    found = propose(LLAMA_13B, CARDS_24GB_4)
    assert (found.groups, found.quantize, found.gradient_checkpointing) == (4, "8bit", True)
    linked = propose(LLAMA_13B, replace(CARDS_24GB_4, fast_links=True))
    assert (linked.ranks, linked.zero_stage, linked.quantize) == (2, 3, "none") or linked.ranks == 4
    assert propose(LLAMA_7B, CARDS_24GB_4).quantize == "none"


def test_what_fits_nowhere_is_refused() -> None:
    huge = ModelShape(layers=80, hidden=8192, intermediate=28672, heads=64, kv_heads=8, vocabulary=128256)
    assert propose(huge, H100_8).zero_stage == 3
    with pytest.raises(ConfigError, match="does not fit 4 x 24 GB"):
        propose(huge, CARDS_24GB_4)
