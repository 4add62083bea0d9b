"""The recipe of a run: every setting, except the data, that decides trained weights.

In: a Config and the digest of the base model. Out: a flat, JSON-able mapping, which `plan.identity.recipe_digest` turns
into the names of stages. Must never hold a path, a clock or a machine: the same recipe on another machine is the same
recipe.
"""

from __future__ import annotations

from typing import Any

from s3t_ray.config.schema import Config

RECIPE_FORMAT = 2
"""Raise it when the code changes what weights come out of the same settings and data."""

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
"""The fields whose docstring in schema.py says `Recipe`; a test keeps the two equal."""

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
"""Values that a recipe does not name, because recipes were written before the field was there: the stages that they
name keep their names."""


def recipe(config: Config, base_digest: str) -> dict[str, object]:
    """Each recipe field by its dotted name, with `base_digest` and the recipe's format."""
    plain = config.model_dump(mode="json")
    settings: dict[str, object] = {"format": RECIPE_FORMAT, "base_digest": base_digest}
    for name in RECIPE_FIELDS:
        value: Any = plain
        for part in name.split("."):
            value = value[part]
        if UNNAMED.get(name, ...) != value:
            settings[name] = value
    return settings
