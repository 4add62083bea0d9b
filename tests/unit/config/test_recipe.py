"""A field's docstring says Recipe if and only if changing the field changes the recipe."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from s3t_ray.config.fields import FieldDoc, fields
from s3t_ray.config.load import load_config
from s3t_ray.config.recipe import RECIPE_FIELDS, UNNAMED, recipe
from s3t_ray.config.schema import Config


def get(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = getattr(config, part)
    return config


def put(section: Any, path: str, value: object) -> Any:
    """`section` with `value` at `path`, unvalidated: a lone change can contradict another field."""
    head, _, rest = path.partition(".")
    return section.model_copy(update={head: put(getattr(section, head), rest, value) if rest else value})


def other(field: FieldDoc, value: object) -> object:
    """A value of the field's type that differs from `value`."""
    if field.path == "workers.groups":
        return 3
    if field.path == "task.date":
        return date(2026, 11, 27)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.001
    if isinstance(value, tuple):
        given = {"optimizer.betas": (0.5, 0.5), "order.sequences": ((0, 1),), "order.probabilities": ((1.0,),)}
        return given.get(field.path, ("changed",))
    if field.takes.startswith("list of 3"):
        return (0.25, 0.5, 0.75)
    if value is None:
        return 1 if field.takes.startswith(("whole number", "number")) else "changed"
    choices = [choice for choice in field.takes.split(" | ") if choice not in ("text", "null", value)]
    if not choices:
        return "changed"
    return ("changed",) if choices[0].startswith("list") else choices[0]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("demo")


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.path)
def test_docstring_and_recipe_agree(config: Config, field: FieldDoc) -> None:
    value = get(config, field.path)
    changed = put(config, field.path, other(field, value))
    assert get(changed, field.path) != value
    assert (recipe(changed, "base") != recipe(config, "base")) == field.decides_weights


def test_the_list_is_the_marked_fields(config: Config) -> None:
    assert list(RECIPE_FIELDS) == [name for name in RECIPE_FIELDS if name in {f.path for f in fields()}]
    assert set(RECIPE_FIELDS) == {field.path for field in fields() if field.decides_weights}
    assert recipe(config, "one base") != recipe(config, "another base")


def test_a_field_that_came_later_leaves_the_names_of_stages_alone(config: Config) -> None:
    """The recipe of a configuration that does not use it is, to the letter, the one from before the field."""
    found = recipe(config, "base")
    assert UNNAMED and set(UNNAMED) <= set(RECIPE_FIELDS)
    assert set(found) == {"format", "base_digest", *RECIPE_FIELDS} - set(UNNAMED)
    used = recipe(put(config, "engine.norms", "fused"), "base")
    assert used == found | {"engine.norms": "fused"}


def test_it_is_plain_json_without_a_path(config: Config) -> None:
    text = json.dumps(recipe(config, "base"), allow_nan=False)
    assert json.loads(text) == recipe(config, "base")
    assert config.storage.uri not in text


def test_every_field_is_documented() -> None:
    assert [field.path for field in fields() if not field.doc] == []
