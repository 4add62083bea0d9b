"""Temporary folders for personal data.

They are next to a local run, where the sweep at the next start erases what a crash left. For other runs they are on
this machine's disk, where the next such folder erases it (`machine_scratch.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from s3t_ray.config.location import CONFIG_FILE
from s3t_ray.errors import StoreError
from s3t_ray.run.machine_scratch import machine_scratch
from s3t_ray.run.run import Run


@contextmanager
def scratch_folder(run: Run, purpose: str, within: str = "") -> Iterator[Path]:
    """A private folder that is erased after the block or, after a kill, by the next sweep of `within`.

    `within`: the storage's folder to create it in, if that is on this machine. StoreError: it cannot be created or
    erased.
    """
    marker = run.store.local_path(f"{within}/{CONFIG_FILE}" if within else CONFIG_FILE)
    parent = None if marker is None else marker.parent
    try:
        if parent is not None and not run.read_only:
            parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(dir=parent, prefix=f"tmp-{purpose}-")
        else:
            folder = machine_scratch("run")
    except OSError as error:
        raise StoreError(
            f"cannot make a temporary folder in {parent or tempfile.gettempdir()}: {error.strerror}",
            "free space there, or make it writable for this user",
        ) from error
    try:
        yield Path(folder.name)
    except BaseException:
        with suppress(OSError):  # the caller must get the error of the block
            folder.cleanup()
        raise
    try:
        folder.cleanup()
    except OSError as error:
        raise StoreError(
            f"the temporary folder {folder.name}, which holds personal data, cannot be erased: {error.strerror}",
            "check that disk; the next start of the run erases the folder, or remove it by hand",
        ) from error
