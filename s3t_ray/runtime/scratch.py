"""Temporary folders for personal data: beside the run where it is local, so that the next start's
sweep erases what a crash left."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3t_ray.runtime.run import Run


@contextmanager
def scratch_folder(run: Run, purpose: str) -> Iterator[Path]:
    """A private folder that is gone after the block, or, after a kill, at the next start."""
    marker = run.store.local_path("config.yaml")
    parent = None if marker is None else marker.parent
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f"tmp-{purpose}-") as folder:
        yield Path(folder)
