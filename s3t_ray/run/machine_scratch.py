"""Temporary folders on a machine's own disk, for copies of slices, unfinished hidden states, and data during ingest.

They hold data that cannot be next to the run: ranks work on their machine's disk, and a run in a bucket has no local
folder. A killed process cleans up nothing, so the next process that requests such a folder on this machine erases what
dead processes left.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
import tempfile
from pathlib import Path


def machine_scratch(kind: str) -> tempfile.TemporaryDirectory[str]:
    """Create a folder for this process. First erases folders of this kind whose process no longer exists here."""
    prefix = f"s3t-{kind}-{socket.gethostname()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*"):
        owner = left.name.removeprefix(prefix).split("-")[0]
        if owner.isdecimal() and not _is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)  # folders of other users stay; those users must erase them
    return tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
