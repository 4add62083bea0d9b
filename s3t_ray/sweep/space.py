"""The points of a sweep: combinations of values for config fields.

In: `A.B=[v1, v2, ...]` texts (every combination is a point), or a YAML list of points. Out: `Point`s.
Pure, except for reading the file. A point's values are checked when they are applied to the config, like any
override.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import yaml

from s3t_ray.errors import ConfigError


@dataclass(frozen=True)
class Point:
    """One combination: ((path, value in YAML), ...)."""

    settings: tuple[tuple[str, str], ...]

    @property
    def overrides(self) -> tuple[str, ...]:
        """The settings as overrides for `config.load`."""
        return tuple(f"{path}={value}" for path, value in self.settings)

    @property
    def label(self) -> str:
        """`budget 4, lora.rank 8`."""
        return ", ".join(f"{path} {value}" for path, value in self.settings) or "as it is"


def grid(vary: Sequence[str]) -> tuple[Point, ...]:
    """Every combination of the values; the last field changes fastest.

    Raises ConfigError if a text is not a list or names a field twice.
    """
    axes = [_axis(text) for text in vary]
    paths = [path for path, _ in axes]
    if len(set(paths)) < len(paths):
        raise ConfigError(f"--vary names a field twice: {paths}", "list each field once, with all its values")
    return tuple(Point(tuple(zip(paths, values, strict=True))) for values in product(*(values for _, values in axes)))


def points_from(path: Path) -> tuple[Point, ...]:
    """The points in a YAML file: a list of `{path: value, ...}`. Raises ConfigError."""
    try:
        listed = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "use a file with points") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}", "write a list of {path: value}") from error
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise ConfigError(f"{path} contains no list of points", "write one per line: - {budget: 4, lora.rank: 8}")
    return tuple(Point(tuple((str(name), _text(value)) for name, value in item.items())) for item in listed)


def _axis(text: str) -> tuple[str, tuple[str, ...]]:
    path, equals, values = text.partition("=")
    try:
        listed = yaml.safe_load(values)
    except yaml.YAMLError:
        listed = None
    if not equals or not path or not isinstance(listed, list) or not listed:
        raise ConfigError(f"--vary {text}: it is not a list of values", "write budget=[1, 2, 4]")
    return path, tuple(_text(value) for value in listed)


def _text(value: object) -> str:
    """The value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
    return text.removesuffix("...").strip()
