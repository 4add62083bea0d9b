"""The temporary folder of a rank, on its machine's own disk: copies of slices, hidden states in the making.

Ranks end by being killed, so none of them clears up after itself: the next rank that starts on the
machine erases what the dead ones left.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
import tempfile
from pathlib import Path


def own_scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder of this process; first erases those of its kind whose process is gone from this machine."""
    prefix = f"s3t-rank-{socket.gethostname()}-"
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
