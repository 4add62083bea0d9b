"""Each task of GLUE and SuperGLUE by one override, on the hub's set or on a copy."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from s3t_ray.config.benchmarks import BENCHMARKS, BenchmarkName
from s3t_ray.config.load import dump_config, load_config, parse_config
from s3t_ray.config.recipe import recipe
from s3t_ray.config.tasks import template_fields


def test_the_config_takes_the_tasks_of_the_table() -> None:
    assert set(get_args(BenchmarkName)) == set(BENCHMARKS)


IMAGES = ("cifar10", "cifar100", "tiny_imagenet")


@pytest.mark.parametrize("ready", ["vit-base", "vit-large"])
@pytest.mark.parametrize("name", IMAGES)
def test_one_override_chooses_the_set_of_images(ready: str, name: str) -> None:
    config = load_config(ready, [f"task.benchmark={name}"])
    found = BENCHMARKS[name]
    assert (config.task.kind, config.task.labels) == ("image_classification", found.labels)
    assert len(found.labels) == {"cifar10": 10, "cifar100": 100, "tiny_imagenet": 200}[name] == len({*found.labels})
    columns = {ours: theirs for ours, theirs in config.data.columns.model_dump().items() if theirs}
    assert (config.data.path, config.data.subset, columns) == (found.path, None, found.columns)
    assert config.data.holdout_split == found.holdout_split and config.task.wanted_metrics == ("accuracy",)
    assert (config.slices, config.lora.rank, config.lora.alpha) == (6, 16, 16)
    assert (config.optimizer.lr, config.optimizer.epochs) == (2e-4, 15)
    assert config.model.shape is not None
    assert round(config.model.shape.parameters / 1e6) == {"vit-base": 86, "vit-large": 303}[ready]
    assert parse_config(dump_config(config), name) == config


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in IMAGES])
def test_one_override_chooses_the_task(name: str) -> None:
    config = load_config("glue", [f"task.benchmark={name}"])
    found = BENCHMARKS[name]
    assert (config.task.kind, config.task.labels) == ("classification" if found.labels else "regression", found.labels)
    assert (config.task.text, config.task.pair, config.task.wanted_metrics) == (found.text, found.pair, found.metrics)
    assert (config.data.path, config.data.subset, config.data.split) == (found.path, name, "train")
    assert config.data.holdout_split == found.holdout_split
    assert template_fields(found.text) and (found.pair is None or template_fields(found.pair))
    assert parse_config(dump_config(config), name) == config


def test_the_published_recipe() -> None:
    config = load_config("glue")
    assert (config.slices, config.lora.layers_per_group, config.lora.rank, config.lora.alpha) == (7, 2, 16, 32)
    assert (config.lora.targets, config.optimizer.lr, config.optimizer.epochs) == (("query", "value"), 1e-4, 30)
    assert round(config.model.shape.parameters / 1e6, -1) == 350  # type: ignore[union-attr]


def test_a_copy_of_ones_own_is_read_as_it_says(config_file: Path) -> None:
    config = load_config(config_file, ["task.benchmark=mrpc", "task.metrics=[accuracy]"])
    assert (config.data.path, config.data.subset, config.data.holdout_split) == ("records.jsonl", None, None)
    assert (config.data.id_field, config.data.on_malformed) == ("auto", "refuse")
    assert (config.task.labels, config.task.metrics) == (("not_equivalent", "equivalent"), ("accuracy",))


def test_what_a_record_shows_is_in_its_content_not_in_the_recipe(config_file: Path) -> None:
    """Else runs that began before there were templates would have to be trained again."""
    one = load_config(config_file, ["task.kind=regression"])
    other = load_config(config_file, ["task.kind=regression", "task.text='{a}: {b}'", "task.pair='{c}'"])
    assert recipe(one, "base") == recipe(other, "base")


@pytest.mark.parametrize(
    ("template", "fields"),
    [("{a}", ("a",)), ("{a}: {b} {a}", ("a", "b", "a")), ("a {{b}}", ()), ("{a", ()), ("{}", ()), ("{0}", ())]
    + [(odd, ()) for odd in ("{a.b}", "{a[0]}", "{a!r}", "{a:>9}")],
)
def test_templates_name_fields_and_nothing_else(template: str, fields: tuple[str, ...]) -> None:
    assert template_fields(template) == fields
