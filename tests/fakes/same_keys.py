"""Keys that are the same in every run of a test, so that the order of keyed hashes is deterministic."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.config.location import MASTER_FILE
from s3t_ray.ledger.keys import KEY_BYTES


def same_keys(folder: Path) -> None:
    """Make them in `folder`, which is to be the run's folder of keys."""
    folder.mkdir(mode=0o700)
    (folder / MASTER_FILE).touch(mode=0o600)
    (folder / MASTER_FILE).write_bytes(bytes(range(KEY_BYTES)))
