"""Handles a run whose folder was moved or copied, so that its config.yaml still names the old location.

In: the path of a config, or a config and the location where its run was found. Out: a config with the actual location,
and a warning in the log. Changes nothing on disk.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from s3t_ray.config.checks import is_remote
from s3t_ray.config.location import CONFIG_FILE, LEDGER_FILE, MASTER_FILE
from s3t_ray.config.schema import Config, KeySettings, Storage

_OF_A_RUN = (LEDGER_FILE, "slices", "stages")
_log = logging.getLogger(__name__)


def run_folder(path: Path) -> Path | None:
    """The folder of the run that this config file belongs to; None: the config is not in a run's folder."""
    folder = path.absolute().parent
    return folder if path.name == CONFIG_FILE and any((folder / name).exists() for name in _OF_A_RUN) else None


def placed(config: Config, root: str) -> Config:
    """`config` with its storage at `root`, where the run was found. Keys at the old location are still used."""
    named = config.storage.uri
    if named == root:
        return config
    moved = config.model_copy(update={"storage": Storage(uri=root)})
    if not is_remote(named) and not is_remote(root):
        old, new = Path(named.removeprefix("file://")), Path(root)
        if os.path.exists(old) and old.samefile(new):
            return moved  # another name of the same folder
        left, beside = (place.with_name(f"{place.name}.keys") for place in (old, new))
        if config.keys.dir is None and os.path.exists(left / MASTER_FILE) and not os.path.exists(beside / MASTER_FILE):
            _log.warning("the run's keys are still in %s: move them to %s, or set keys.dir", left, beside)
            moved = moved.model_copy(update={"keys": KeySettings(dir=str(left))})
    _log.warning(
        "the run is at %s, but its %s still names its old location %s. `s3t train %s/%s` updates it",
        root,
        CONFIG_FILE,
        named,
        root,
        CONFIG_FILE,
    )
    return moved
