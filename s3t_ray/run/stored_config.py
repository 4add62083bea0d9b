"""Finds a run's storage and reads the config in it.

In: the folder, URI or YAML file that names a run. Out: the store, and the config that `s3t train` published there.
"""

from __future__ import annotations

from pathlib import Path

from s3t_ray.config.load import parse_config
from s3t_ray.config.location import CONFIG_FILE
from s3t_ray.config.moved_run import placed, run_folder
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError, StoreError
from s3t_ray.store.store import Store

_FIX = "give the storage folder or URI of a run that `s3t train` started"


def stored_config(uri: str | Path) -> tuple[Store, Config]:
    """The storage of the run at `uri` (its root, or a config file that names it), and its config. ConfigError."""
    root = str(uri)
    if root.endswith((".yaml", ".yml")) and Path(root).is_file():
        home = run_folder(Path(root))
        root = str(home) if home is not None else parse_config(Path(root).read_text(), root).storage.uri
    if "://" not in root:
        root = str(Path(root).absolute())
        if not Path(root, CONFIG_FILE).is_file():
            raise ConfigError(f"no run at {root}: it holds no {CONFIG_FILE}", _FIX)
    store = Store.open(root)
    try:
        text = store.read_bytes(CONFIG_FILE).decode()
    except StoreError as error:
        raise ConfigError(f"no run at {root}: {CONFIG_FILE} cannot be read ({error.problem})", _FIX) from error
    return store, placed(parse_config(text, f"{root}/{CONFIG_FILE}"), root)
