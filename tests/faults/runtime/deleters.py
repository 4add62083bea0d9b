"""What the runtime's fault tests run beside a scheduler: processes that delete, and say what was acknowledged.

An acknowledgement is a line in a file, written through before the next request: what stands there was
acknowledged, whatever happened next.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path

from s3t_ray.run import deletion
from s3t_ray.run.run import Run


def delete_each(run: Path, acknowledged: Path, requests: Sequence[tuple[list[str], list[str]]], begin: Event) -> None:
    """One deletion a request (ids and subjects), each acknowledged, once `begin` is set."""
    with Run.open(run) as opened:
        begin.wait()
        for ids, subjects in requests:
            receipt = deletion.accept(opened, ids, subjects)
            acknowledge(acknowledged, f"{receipt.request_id} {receipt.records} {receipt.repeated}")


def acknowledge(path: Path, line: str) -> None:
    """Write one line, unbuffered."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)
