"""Adapters that leave the run: where `s3t export` wrote them, and how a deletion erases them.

Copies that people made of an exported folder are out of the run's reach; the documentation says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from s3t_ray.errors import StoreError
from s3t_ray.ledger.values import StageRow, StageState
from s3t_ray.run.run import Run

EXPORTED = "exported"
"""Event of the ledger's history whose detail is an `ExportedFolder`."""
ERASED = "export_erased"
"""Event that follows once its files are gone: {"folder": ...}."""


@dataclass(frozen=True)
class ExportedFolder:
    """A folder that the run wrote, the stages whose weights are in it, and its files."""

    folder: str
    stages: tuple[str, ...]
    files: tuple[str, ...]


def remember_export(run: Run, shard: int, export: ExportedFolder) -> None:
    """Note an export before its files are written: a crash leaves a note too many, never one too few."""
    detail = {"folder": export.folder, "stages": list(export.stages), "files": list(export.files)}
    run.ledger.add_event(EXPORTED, shard, detail)


def exported_folders(run: Run) -> tuple[ExportedFolder, ...]:
    """Exports that may still be on disk; of each folder, the newest."""
    folders: dict[str, ExportedFolder] = {}
    for event in run.ledger.events(kinds=(EXPORTED, ERASED)):
        detail = json.loads(event.detail)
        folder = str(detail["folder"])
        if event.kind == ERASED:
            folders.pop(folder, None)
        else:
            folders[folder] = ExportedFolder(folder, tuple(detail["stages"]), tuple(detail["files"]))
    return tuple(folders.values())


def forget_export(run: Run, folder: str) -> None:
    """Note that an export's files are gone, or were never written."""
    run.ledger.add_event(ERASED, None, {"folder": folder})


def purge_exports(run: Run, stale: Iterable[StageRow]) -> None:
    """Erase the exports that hold weights of stale or purged stages: the files that the run wrote, and no other.

    One whose files are not there may be in the making: its note stays, and every later purge and start of
    a scheduler looks again, should the export be killed before it sees that it came too late.
    """
    exports = exported_folders(run)
    if not exports:
        return
    gone = {stage.id for stage in (*stale, *run.ledger.stages(state=StageState.PURGED))}
    for export in exports:
        if gone.isdisjoint(export.stages):
            continue
        try:
            files = [path for name in export.files if (path := Path(export.folder, name)).exists()]
            for path in files:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"the export at {export.folder} holds weights that must be erased, and cannot be: {error}",
                "make the folder writable for the run, or remove it by hand; the purge tries again",
            ) from error
        if files:
            forget_export(run, export.folder)
