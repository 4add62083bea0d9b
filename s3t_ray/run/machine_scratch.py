"""Temporary folders on a machine's own disk: copies of slices, hidden states in the making, data being read in.

For data that cannot be next to the run: ranks work on their machine's disk, and a run in a bucket has no folder here. A
killed process cleans up nothing: the next process that asks for such a folder on this machine erases what dead
processes left.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
import tempfile
from pathlib import Path


def machine_scratch(kind: str) -> tempfile.TemporaryDirectory[str]:
    """A folder of this process; first erases those of its kind whose process is gone from this machine."""
    prefix = f"s3t-{kind}-{socket.gethostname()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*"):
        owner = left.name.removeprefix(prefix).split("-")[0]
        if owner.isdecimal() and not _is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)  # another user's stays, and is that user's to erase
    return tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
