"""Adapters that leave the run: where `s3t export` wrote them, and how a deletion erases them.

Copies of an exported folder are out of the run's reach; the documentation says so.
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
"""Those of older versions too."""


def purge_exports(run: Run, stale: Iterable[StageRow]) -> None:
    """Erase the exports that hold weights of stale or purged stages: the files that the run wrote, and no other.

    One whose files are not there may be in the making: its note stays, and every later purge and start of
    a scheduler looks again, should the export be killed before it sees that it came too late.
    StoreError: a file cannot be erased, or is none that an export has.
    """
    exports = run.ledger.exports.all()
    if not exports:
        return
    known = run.ledger.stages()
    gone = {stage.id for stage in (*stale, *(each for each in known if each.state is StageState.PURGED))}
    kept = {stage.id for stage in known} - gone
    for export in exports:
        # A stage that the ledger does not know was trained before it was restored from a backup, on who knows what.
        if kept.issuperset(export.stages):
            continue
        if strange := sorted(set(export.files) - _EVER_EXPORTED):
            # Or whoever can write the ledger could have a purge erase any file of this user, the keys among them.
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
                _sync(folder)  # or a power cut brings the weights back once the ledger has forgotten them
        except OSError as error:
            raise StoreError(
                f"the export at {export.folder} holds weights that must be erased, and cannot be: {error}",
                "make the folder writable for the run, or remove it by hand; the purge tries again",
            ) from error
        if files:
            run.ledger.exports.forget(export.folder)


def _sync(folder: str) -> None:
    """Put the names in `folder`, which may be reached by a link, on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
