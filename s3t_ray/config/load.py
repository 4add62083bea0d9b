"""Loads and validates a config, from a file or by the name of a ready config, before anything starts.

In: YAML text and overrides. Out: a Config with absolute local paths, or a ConfigError that names the
field, the value and the fix. Never starts, creates or downloads anything.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import ValidationError

from s3t_ray.config.benchmarks import fill_benchmark
from s3t_ray.config.checks import is_remote
from s3t_ray.config.document import Document, apply_overrides, parse_document
from s3t_ray.config.explain import explain
from s3t_ray.config.location import check_keys_apart
from s3t_ray.config.moved_run import placed, run_folder
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError

_READY = files("s3t_ray") / "configs"


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config in the YAML file `source`, or the ready config of that name, with `a.b=value` overrides.

    Relative local paths are resolved against the current folder. The config in a run's folder refers to the run in that
    folder, even if the folder was moved. Raises ConfigError.
    """
    document = apply_overrides(parse_document(_read(source), str(source)), overrides)
    config = absolute_paths(_validate(document))
    home = run_folder(Path(source).expanduser())
    if home is not None and not any(override.startswith("storage.uri=") for override in overrides):
        config = placed(config, str(home))
    check_keys_apart(config)
    return config


def parse_config(text: str, origin: str) -> Config:
    """The config in `text`; `origin` names it in errors. Paths are not changed. Raises ConfigError."""
    return _validate(parse_document(text, origin))


def dump_config(config: Config) -> str:
    """The config as YAML, which `parse_config` reads back to an equal config."""
    plain = config.model_dump(mode="json")
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


@cache
def ready_configs() -> tuple[str, ...]:
    """The names of the configs that come with s3t_ray, sorted."""
    return tuple(sorted(item.name.removesuffix(".yaml") for item in _READY.iterdir() if item.name.endswith(".yaml")))


def ready_text(name: str) -> str:
    """The YAML of a ready config, including comments."""
    return (_READY / f"{name}.yaml").read_text(encoding="utf-8")


def absolute_paths(config: Config) -> Config:
    """`config` with absolute local paths, so that it means the same in every folder and on every node."""
    ledger = config.ledger.url
    if ledger is not None and ledger.startswith("sqlite:///"):
        ledger = f"sqlite:///{_absolute(ledger.removeprefix('sqlite:///'))}"
    uri = config.storage.uri
    changes = {
        "model": config.model.model_copy(update={"path": _absolute_if_there(config.model.path)}),
        "data": config.data.model_copy(
            update={
                "path": _absolute_if_there(config.data.path),
                "holdout_path": config.data.holdout_path and _absolute_if_there(config.data.holdout_path),
            }
        ),
        "storage": config.storage.model_copy(
            update={"uri": uri if is_remote(uri) else _absolute(uri.removeprefix("file://"))}
        ),
        "ledger": config.ledger.model_copy(update={"url": ledger}),
        "keys": config.keys.model_copy(update={"dir": config.keys.dir and _absolute(config.keys.dir)}),
    }
    return config.model_copy(update=changes)


def _read(source: str | Path) -> str:
    if str(source) in ready_configs():
        return ready_text(str(source))
    path = Path(source).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        near = get_close_matches(str(source), ready_configs(), n=1)
        ready = f"did you mean {near[0]}?" if near else f"ready configs: {', '.join(ready_configs())}"
        raise ConfigError(
            f"config {path} does not exist", f"use the path of a YAML file, or the name of a ready config ({ready})"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}", "use the path of a YAML file") from error


def _validate(document: Document) -> Config:
    # Validate as JSON, because only then does pydantic's strict mode accept a list for a tuple.
    try:
        return Config.model_validate_json(json.dumps(fill_benchmark(document.tree), default=str), strict=True)
    except ValidationError as error:
        raise explain(error, document) from error


def _absolute(path: str) -> str:
    if "\0" in path:
        raise ConfigError(f"the path {path!r} contains a null character", "remove it")
    return os.path.abspath(os.path.expanduser(path))


def _absolute_if_there(path: str) -> str:
    """The absolute path of an existing file, folder or glob. Anything else may be a hub name and is not changed."""
    absolute = _absolute(path)
    there = os.path.exists(absolute) or any(True for _ in glob.iglob(absolute, recursive=True))
    return absolute if there else path
