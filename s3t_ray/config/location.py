"""Resolves the locations of a run's storage, ledger and keys.

In: a Config and the environment (for ${NAME} in `ledger.url`). Out: a RunLocation. Never creates a
folder, connects to anything, or shows the value of an environment variable.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from s3t_ray.config.checks import is_remote
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError

CONFIG_FILE = "config.yaml"
"""The config that a run was started with, in the run's folder."""

LEDGER_FILE = "ledger.db"
"""The default ledger, in the run's folder."""

MASTER_FILE = "master.key"
"""The master secret of a run, in its key folder."""

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class RunLocation:
    """The resolved locations of a run. `ledger_url` can contain a password: never print or store it."""

    storage_uri: str
    ledger_url: str = field(repr=False)
    keys_dir: Path
    log_copy: Path | None = None


def locate(config: Config) -> RunLocation:
    """The locations of the run of `config`.

    Raises ConfigError if an environment variable is not set, or if the keys would be inside the storage.
    """
    check_keys_apart(config)
    uri = config.storage.uri
    if not is_remote(uri):
        uri = str(_local(uri))
    url = f"sqlite:///{uri}/{LEDGER_FILE}" if config.ledger.url is None else _expand(config.ledger.url)
    copy = None if config.ledger.log_copy is None else _local(config.ledger.log_copy)
    return RunLocation(uri, url, _keys_dir(config), copy)


def check_keys_apart(config: Config) -> None:
    """Raise ConfigError if the keys would be inside the run's storage, where a copy would include them."""
    if is_remote(config.storage.uri):
        return
    root, keys = _local(config.storage.uri).resolve(), _keys_dir(config).resolve()
    if keys.is_relative_to(root):
        raise ConfigError(
            f"keys.dir = {keys}: it is inside storage.uri ({root}), so a copy of the run would contain its keys",
            f"set it to a folder outside, such as {root}.keys, or remove keys.dir",
        )


def _keys_dir(config: Config) -> Path:
    if config.keys.dir is not None:
        return _local(config.keys.dir)
    if is_remote(config.storage.uri):
        raise ConfigError("keys.dir is not set and the storage is remote", "set keys.dir to a folder on the head node")
    root = _local(config.storage.uri)
    return root.with_name(f"{root.name}.keys")


def _local(path: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path.removeprefix("file://"))))


def _expand(url: str) -> str:
    """`url` with each ${NAME} replaced from the environment. Raises ConfigError if a variable is not set.

    Values before the host's `@` (user and password) are percent-encoded, so a password can contain any
    character. Other values are inserted unchanged.
    """
    host = url.rfind("@")

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        found = os.environ.get(name)
        if not found:
            raise ConfigError(
                f"ledger.url takes ${{{name}}} from the environment, but it is not set", f"export {name}=..."
            )
        return quote(found, safe="") if match.start() < host else found

    return _VARIABLE.sub(value, url)


def check_outlives_job(location: RunLocation) -> None:
    """Raise ConfigError if a run or its keys would be in a Ray job's copy of the working folder.

    That copy is deleted after the job.
    """
    here = Path.cwd()
    if not in_job_copy(here):
        return
    if "://" not in location.storage_uri and Path(location.storage_uri).is_relative_to(here):
        raise ConfigError(
            f"storage.uri = {location.storage_uri} is in this job's copy of its working folder, which is deleted "
            "after the job",
            "use an absolute path on a disk that all nodes share, or an s3:// or gs:// URI",
        )
    if location.keys_dir.is_relative_to(here):
        raise ConfigError(
            f"keys.dir = {location.keys_dir} is in this job's copy of its working folder, which is deleted after the "
            "job",
            "use an absolute path on the node where jobs run, which is the head node",
        )


def check_job_folder(here: Path) -> None:
    """Raise ConfigError if a Ray job was submitted with a folder that contains keys or a run.

    Ray keeps the packed folder on the head and on every node that runs a worker until the cluster ends. No deletion
    reaches those copies.
    """
    if not in_job_copy(here):
        return
    key = min(here.rglob(MASTER_FILE), default=None)
    if key is not None:
        raise ConfigError(
            f"this job's working folder holds keys: {key.relative_to(here)}. Ray has copied them to its nodes",
            "submit with `--working-dir jobs`, shut down the cluster, which holds the copies, and treat the ids of "
            "their run as known to everyone who can access the cluster",
        )
    ledger = min(here.rglob(LEDGER_FILE), default=None)
    if ledger is not None:
        raise ConfigError(
            f"this job's working folder holds a run: {ledger.parent.relative_to(here)}. Ray has copied its records to "
            "its nodes, where no deletion reaches them",
            "submit with `--working-dir jobs`, and shut down the cluster, which holds the copies",
        )


def in_job_copy(folder: Path) -> bool:
    """Whether `folder` is a Ray job's copy of its working folder."""
    return folder.parent.name == _JOB_COPIES


_JOB_COPIES = "working_dir_files"
"""Ray's folder on each node for copies of the jobs' working folders."""
