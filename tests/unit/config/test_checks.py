"""Settings that are valid alone and impossible together."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.config.load import load_config
from s3t_ray.errors import ConfigError

ON_GPU = ("workers.gpus_per_rank=1", "engine.precision=bfloat16")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task.kind=classification", "task.labels=[a]"], "at least 2 classes"),
        (["task.kind=classification", "task.labels=[a, b, a]"], "named twice"),
        (["task.labels=[a, b]"], "kind is causal_lm"),
        (["data.partition_by=subject"], "data.subject_field names no field"),
        (["data.holdout=0.1", "data.holdout_path=x.jsonl"], "keep one"),
        (["data.subject_field=id"], "the same field"),
        (["order.kind=chains", "budget=4"], "3 chains of 3 slices"),
        (["order.sequences=[[0, 1, 2], [1, 2, 0]]"], "order.kind is cyclic"),
        (["order.kind=greedy", "slices=17", "lora.layers_per_group=1"], "17 slices have too many"),
        (["order.probabilities=[[1, 1, 1]]"], "order.kind cyclic does not use them"),
        (["order.kind=greedy", "shards=3", "order.probabilities=[[1, 1, 1], [1, 1, 1]]"], "1 row for all shards, or 3"),
        (["order.kind=bms", "order.probabilities=[[1, 1]]"], "not 3 numbers"),
        (["order.kind=bms", "order.probabilities=[[0, 0, 0]]"], "sum above 0"),
        (["order.kind=greedy", "order.depends_on_history=true"], "depends only on the seed"),
        (["order.kind=explicit"], "list exactly 2"),
        (["order.kind=explicit", "order.sequences=[[0, 1, 2], [0, 1, 1]]"], "not a permutation"),
        (["order.kind=explicit", "order.sequences=[[0, 1, 2], [0, 1, 2]]"], "each order different"),
        (["model.quantize=8bit", "task.kind=classification", "task.labels=[a, b]"], "must not be quantized"),
        ([*ON_GPU, "model.quantize=4bit", "engine.zero_stage=3"], "ZeRO 3"),
        (["engine.precision=bfloat16"], "15 times slower"),
        (["model.attention=flash_attention_2"], "only on GPUs"),
        (["workers.gpus_per_rank=1", "model.attention=flash_attention_2"], "bfloat16"),
        (["model.attention=flash_varlen"], "only on GPUs"),
        (["model.shape={layers: 4, hidden: 8, intermediate: 8, heads: 2, kv_heads: 2, vocabulary: 9}"], "model has 4"),
        (
            ["model.shape={layers: 9, hidden: 8, intermediate: 8, heads: 2, kv_heads: 2, vocabulary: 9, positions: 9}"],
            "at most 9 tokens",
        ),
        (
            [
                *ON_GPU,
                "model.attention=flash_varlen",
                "task.kind=classification",
                "task.labels=[a, b]",
                "engine.hidden_states=recompute",
            ],
            "padded batches",
        ),
        (["task.kind=regression", "task.labels=[a, b]"], "kind is regression"),
        (["ensemble=mean", "task.kind=classification", "task.labels=[a, b]"], "set ensemble to logits"),
        (["task.kind=regression", "task.metrics=[accuracy]"], "choose from pearson, spearman"),
        (["task.metrics=[accuracy]"], "remove task.metrics"),
        (["task.kind=classification", "task.labels=[a, b, c]", "task.metrics=[f1]"], "use f1_macro"),
        (["task.text='{sentence}'"], "remove task.text"),
        (["task.pair='{b}'"], "remove task.pair"),
        (["task.kind=regression", "task.text=sentence"], "not a template"),
        (["task.kind=regression", "task.pair='{a'"], "is not a template"),
        (["task.kind=regression", "task.pair='{a.__class__}'"], "is not a template"),
        (["task.benchmark=rte", "task.kind=regression"], "task.benchmark rte has classification"),
        (["task.benchmark=rte", "task.text='{a}'"], "remove task.text, or remove task.benchmark"),
        (["data.holdout=0.1", "data.holdout_split=validation"], "data.holdout_split is also given"),
        (["data.holdout_path=x", "data.holdout_split=validation"], "data.holdout_split is also given"),
        (["engine.norms=fused"], "already one operation"),
        ([*ON_GPU, "engine.norms=fused", "task.kind=classification", "task.labels=[a, b]"], "only text models"),
        (["workers.gpus_per_rank=2", "engine.ranks=3"], "engine.ranks to 6"),
        (["engine.stored_boundaries=[1, 4]"], "different depths from 1 to 3"),
        (["engine.stored_boundaries=[1, 1]"], "list each depth once"),
        (["engine.stored_boundaries=auto", "engine.hidden_states=recompute"], "which stores no states"),
        (["engine.stored_boundaries=[1]", "engine.zero_stage=3"], "gather each layer together"),
        (["engine.stored_boundaries=[1]", "lora.isolation=none"], "use all, auto or [3]"),
        (["storage.uri=gs://b/run", "ledger.url='postgresql+psycopg://host/db'"], "keys.dir = null"),
        (["ledger.url=mysql://host/db"], "neither sqlite"),
    ],
)
def test_refused(config_file: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(config_file, overrides)
    assert words in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    "overrides",
    [
        ["order.kind=explicit", "order.sequences=[[0, 1, 2], [1, 0, 2]]"],
        ["order.kind=chains", "budget=3"],
        ["order.kind=greedy", "order.probabilities=[[3, 2, 1]]", "order.depends_on_history=true"],
        ["order.kind=bms", "shards=2", "order.probabilities=[[3, 2, 1], [0, 0.5, 1]]"],
        [*ON_GPU, "model.quantize=8bit", "model.attention=flash_attention_2"],
        ["task.kind=classification", "task.labels=[bad, good]"],
        ["ledger.url=${LEDGER_URL}"],
        ["engine.stored_boundaries=[]"],
        ["model.quantize=4bit"],
        ["ensemble=mean"],
        ["engine.stored_boundaries=[3, 1]"],
        ["engine.stored_boundaries=auto", "storage.hidden_states_gib=0.5", "workers.gigaflops_per_rank=90"],
        ["engine.zero_stage=3", "engine.stored_boundaries=all"],
        ["engine.stored_boundaries=[3]", "lora.isolation=none"],
    ],
)
def test_accepted(config_file: Path, overrides: list[str]) -> None:
    load_config(config_file, overrides)


def test_depth_is_checked_against_the_real_model_too(config_file: Path) -> None:
    config = load_config(config_file)
    config.check_depth(6)
    with pytest.raises(
        ValueError, match=r"3 x 2 = 6 layers: the model has 5; lower lora\.layers_per_group to 1 or slices"
    ):
        config.check_depth(5)
