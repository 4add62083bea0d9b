"""Which folders are in memory (tmpfs): their contents are lost with the machine or the pod.

In: paths, Linux' table of mounts. Out: whether a run's keys would vanish before the run does.
"""

from __future__ import annotations

import re
from pathlib import Path

from s3t_ray.errors import ConfigError

MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def check_keys_last(keys_dir: Path, storage_uri: str | None, mounts: str | None = None) -> None:
    """Raise ConfigError when keys made in this folder would be in memory while the run's storage is not.

    `storage_uri` None: not known yet. `mounts`: text of /proc/self/mountinfo; None: this machine's, and nothing is
    refused where there is none.
    """
    if mounts is None:
        if not MOUNTS.exists():
            return
        mounts = MOUNTS.read_text()
    if not is_in_memory(keys_dir, mounts):
        return
    if storage_uri is not None and "://" not in storage_uri and is_in_memory(Path(storage_uri), mounts):
        return  # a trial run: both are gone together
    raise ConfigError(
        f"the run's keys would be made in {keys_dir}, which is in memory: they would be gone with this "
        "machine or pod, and without them no deletion can be accepted",
        "make them on a disk beforehand (`s3t keys FOLDER`), back them up, and provide them there (in Kubernetes as a "
        "Secret), or set keys.dir to a folder on a disk that lasts",
    )


def is_in_memory(path: Path, mounts: str) -> bool:
    """Whether `path` (it need not exist) is on a tmpfs, by the text of /proc/self/mountinfo (see proc(5))."""
    real = path.resolve()
    nearest, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mount = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), before.split()[4])  # a space in a path is \\040
        # The last of several mounts on one folder is the one that is seen.
        if real.is_relative_to(mount) and len(mount) >= len(nearest):
            nearest, kind = mount, after.split()[0]
    return kind in IN_MEMORY
