"""Detects folders in memory (tmpfs), whose contents are lost when the machine or pod stops.

In: paths, and Linux's mount table. Out: whether a run's keys would be lost before the run.
"""

from __future__ import annotations

import re
from pathlib import Path

from s3t_ray.errors import ConfigError

MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def check_keys_last(keys_dir: Path, storage_uri: str | None, mounts: str | None = None) -> None:
    """Raise ConfigError if keys in this folder would be in memory although the run's storage is not.

    `storage_uri` None: not known yet. `mounts`: the text of /proc/self/mountinfo; None: read this machine's, and do
    nothing if it does not exist.
    """
    if mounts is None:
        if not MOUNTS.exists():
            return
        mounts = MOUNTS.read_text()
    if not is_in_memory(keys_dir, mounts):
        return
    if storage_uri is not None and "://" not in storage_uri and is_in_memory(Path(storage_uri), mounts):
        return  # a trial run: both are lost together
    raise ConfigError(
        f"the run's keys would be created in {keys_dir}, which is in memory: they would be lost when this machine or "
        "pod stops, and without them no deletion can be accepted",
        "create them on a disk beforehand (`s3t keys FOLDER`), back them up, and provide them there (in Kubernetes as "
        "a Secret), or set keys.dir to a folder on a persistent disk",
    )


def is_in_memory(path: Path, mounts: str) -> bool:
    """Whether `path`, which need not exist, is on a tmpfs. `mounts`: the text of /proc/self/mountinfo (see proc(5))."""
    real = path.resolve()
    nearest, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mount = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), before.split()[4])  # a space in a path is \\040
        # If a folder has several mounts, the last one is visible.
        if real.is_relative_to(mount) and len(mount) >= len(nearest):
            nearest, kind = mount, after.split()[0]
    return kind in IN_MEMORY
