"""Converts points to trials, each with its own config. Trials share a run where possible.

In: a base config, points, a folder. Out: `Trial`s, in the order to run them. Points that differ only in
settings that do not affect stage ids (above all the budget) share one run, the smallest budget first: each
trial trains only what the previous one lacks, and the largest has all stages. Points that differ in settings
that affect stage ids get separate runs, in folders named by a digest of those settings. All runs use the same
keys, so they have the same partition. Different kinds of order also get separate runs, because a run purges
the stages that its orders do not want.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from s3t_ray.config.load import dump_config, parse_config
from s3t_ray.config.recipe import recipe
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError
from s3t_ray.plan.identity import digest_fields
from s3t_ray.sweep.space import Point

ROOT_DOMAIN = "s3t/sweep/1"
_FIXED = ("storage", "ledger", "keys", "name", "data", "model.path")
"""Settings that a sweep cannot vary: locations and data."""


@dataclass(frozen=True)
class Trial:
    """One point to train and measure. Trials with the same `root` share a run."""

    point: Point
    config: Config
    root: str


def arrange(base: Config, points: Sequence[Point], folder: Path, base_digest: str) -> tuple[Trial, ...]:
    """The trials, run by run, with each run's smallest budget first.

    Raises ConfigError if a point sets a field that a sweep cannot vary, or an invalid value.
    """
    trials = [_trial(base, point, folder, base_digest) for point in points]
    seen: dict[str, int] = {}
    for trial in trials:
        seen.setdefault(trial.root, len(seen))
    return tuple(sorted(trials, key=lambda trial: (seen[trial.root], trial.config.budget)))


def _trial(base: Config, point: Point, folder: Path, base_digest: str) -> Trial:
    for path, _ in point.settings:
        if any(path == fixed or path.startswith(f"{fixed}.") for fixed in _FIXED):
            raise ConfigError(
                f"a sweep cannot vary {path}", "vary training settings, and use another sweep for other data"
            )
    document = yaml.safe_load(dump_config(base))
    for path, value in point.settings:
        _put(document, path, yaml.safe_load(value), point)
    document["storage"] = {"uri": str(folder)}
    document["ledger"], document["keys"] = {"url": None}, {"dir": str(folder.with_name(f"{folder.name}.keys"))}
    config = parse_config(json.dumps(document), f"the point ({point.label})")
    root = _root(config, base_digest)
    document["storage"] = {"uri": str(folder / root)}
    return Trial(point, parse_config(json.dumps(document), f"the point ({point.label})"), root)


def _put(document: dict[str, object], path: str, value: object, point: Point) -> None:
    *sections, name = path.split(".")
    for section in sections:
        inner = document.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{path} of the point ({point.label}): {section} is not a section", "see docs/config.md")
        document = inner
    document[name] = value


def _root(config: Config, base_digest: str) -> str:
    """What a run is named by: all that two trials must agree on to share stages and not to purge each other's."""
    names = {
        "recipe": recipe(config, base_digest),
        "data": config.data.model_dump(mode="json"),
        "order": config.order.model_dump(mode="json"),
    }
    return digest_fields(ROOT_DOMAIN, json.dumps(names, sort_keys=True))[:12]
