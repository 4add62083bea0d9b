"""The recipe of a run: every setting, except the data, that affects the trained weights.

In: a Config and the digest of the base model. Out: a flat mapping that can be written as JSON. Its digest
(`plan.identity.recipe_digest`) is part of every stage id. The recipe never contains a path, a time or a machine, so it
is the same on every machine.
"""

from __future__ import annotations

from typing import Any

from s3t_ray.config.schema import Config

RECIPE_FORMAT = 2
"""Increase it if a code change alters the weights that the same settings and data produce."""

RECIPE_FIELDS = (
    "seed",
    "shards",
    "slices",
    "model.attention",
    "model.quantize",
    "task.kind",
    "task.max_tokens",
    "task.prompt",
    "task.date",
    "task.train_on_prompt",
    "task.labels",
    "task.pixels.size",
    "task.pixels.resize",
    "task.pixels.resample",
    "task.pixels.mean",
    "task.pixels.std",
    "data.partition_by",
    "data.holdout",
    "lora.rank",
    "lora.alpha",
    "lora.dropout",
    "lora.use_rslora",
    "lora.layers_per_group",
    "lora.isolation",
    "lora.targets",
    "optimizer.lr",
    "optimizer.betas",
    "optimizer.eps",
    "optimizer.weight_decay",
    "optimizer.warmup",
    "optimizer.schedule",
    "optimizer.epochs",
    "optimizer.batch_records",
    "optimizer.grad_clip",
    "engine.precision",
    "engine.zero_stage",
    "engine.ranks",
    "engine.threads",
    "engine.micro_batch_tokens",
    "engine.hidden_states",
    "engine.norms",
    "engine.gradient_checkpointing",
)
"""The fields whose docstring in schema.py says `Recipe`. A test keeps both in sync."""

UNNAMED: dict[str, object] = {
    "engine.norms": "eager",
    "lora.isolation": "layers",
    "task.date": None,
    "task.pixels.size": None,
    "task.pixels.resize": None,
    "task.pixels.resample": None,
    "task.pixels.mean": None,
    "task.pixels.std": None,
}
"""Values that a recipe omits, because they were the only behaviour before the field existed. So older stages keep their
ids."""


def recipe(config: Config, base_digest: str) -> dict[str, object]:
    """The recipe: each recipe field by its dotted name, `base_digest`, and the recipe's format."""
    plain = config.model_dump(mode="json")
    settings: dict[str, object] = {"format": RECIPE_FORMAT, "base_digest": base_digest}
    for name in RECIPE_FIELDS:
        value: Any = plain
        for part in name.split("."):
            value = value[part]
        if UNNAMED.get(name, ...) != value:
            settings[name] = value
    return settings
