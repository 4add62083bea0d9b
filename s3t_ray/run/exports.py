"""Exported adapters: where `s3t export` wrote them, and how a deletion erases them.

The run cannot erase further copies of an exported folder; the documentation says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from s3t_ray.errors import StoreError
from s3t_ray.ledger.values import StageRow, StageState
from s3t_ray.run.run import Run
from s3t_ray.store.manifest import ADAPTER_CONFIG, ADAPTER_FILE, HEAD_FILE

MODEL_CARD = "README.md"
EXPORTED_FILES = (ADAPTER_FILE, ADAPTER_CONFIG, MODEL_CARD)
"""The files of an export."""
_EVER_EXPORTED = frozenset({*EXPORTED_FILES, HEAD_FILE})
"""Includes the files of older versions."""


def purge_exports(run: Run, stale: Iterable[StageRow]) -> None:
    """Erase exports with weights of stale or purged stages: only the files that the run wrote.

    If an export's files do not exist, it may be in progress. Its note stays, and every later purge and scheduler start
    checks again, in case the export is killed before it notices the deletion.
    StoreError: a file cannot be erased, or is not one that an export writes.
    """
    exports = run.ledger.exports.all()
    if not exports:
        return
    known = run.ledger.stages()
    gone = {stage.id for stage in (*stale, *(each for each in known if each.state is StageState.PURGED))}
    kept = {stage.id for stage in known} - gone
    for export in exports:
        # A stage that is not in the ledger was trained before a restore from a backup, on unknown records.
        if kept.issuperset(export.stages):
            continue
        if strange := sorted(set(export.files) - _EVER_EXPORTED):
            # Otherwise write access to the ledger would let an attacker erase any file of this user, even the keys.
            raise StoreError(
                f"the ledger says that the export at {export.folder} has a file {strange[0]!r}, which no export has: "
                "its row was changed outside the run; nothing of it was erased",
                "look into the folder, and restore the ledger from a copy",
            )
        try:
            files = [path for name in export.files if (path := Path(export.folder, name)).exists()]
            for path in files:
                path.unlink(missing_ok=True)
            for folder in sorted({str(path.parent) for path in files}):
                _sync(folder)  # otherwise a power cut could bring the weights back after the ledger has forgotten them
        except OSError as error:
            raise StoreError(
                f"the export at {export.folder} holds weights that must be erased, and cannot be: {error}",
                "make the folder writable for the run, or remove it by hand; the purge tries again",
            ) from error
        if files:
            run.ledger.exports.forget(export.folder)


def _sync(folder: str) -> None:
    """Sync the entries of `folder`, which may be a link, to disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
