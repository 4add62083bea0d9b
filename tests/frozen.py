"""Frozen runs of earlier versions, which every later version must open and continue.

In: an archive of tests/data, made by tools/freeze_run.py. Out: a copy of it to work on, and what is known of it.
The archive itself is never opened for writing: opening a ledger migrates it, so it is always a copy that is opened.
The configs name the folder where the run was made; a copy's are edited, as those of a run that was moved.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"
CONFIG = "config.yaml"
RUN = "run"
CERTIFICATE = "certificate.json"
PUBLIC_KEY = "run.keys/public.pem"
RECORDS = "data.jsonl"


@dataclass(frozen=True)
class Facts:
    """What was true of a run when it was frozen, and what its second deletion must lead to."""

    version: str  # of s3t_ray
    folder: str  # where it was made
    commit: str
    recipe_format: int
    recipe_digest: str
    request_id: str  # of the certified deletion
    certificate_hash: str
    deleted_subject: str
    adapters: dict[str, str]  # live stages as they are in the archive: id -> SHA-256 of the adapter
    second_subject: str  # to be deleted by the version under test
    adapters_after: dict[str, str]  # live stages once that deletion is restored

    def dump(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True)
class FrozenRun:
    """An archive and its facts, side by side."""

    name: str

    @property
    def archive(self) -> Path:
        return DATA / f"{self.name}.tar.xz"

    @property
    def facts(self) -> Facts:
        return Facts(**json.loads((DATA / f"{self.name}.json").read_text()))

    def thaw(self, folder: Path) -> Path:
        """Unpack a copy into `folder`, which then holds the base, data, config, run, keys and certificate."""
        with tarfile.open(self.archive) as packed:
            packed.extractall(folder, filter="data")
        move_paths(folder, self.facts.folder)
        return folder


def move_paths(folder: Path, before: str) -> None:
    """Let the configs of a copy in `folder` name it instead of the folder `before`."""
    for path in (folder / CONFIG, folder / RUN / CONFIG):
        path.write_text(path.read_text().replace(before, str(folder)))


def frozen_runs() -> list[FrozenRun]:
    """All of them, the oldest version first."""
    return [FrozenRun(path.name.removesuffix(".tar.xz")) for path in sorted(DATA.glob("run-*.tar.xz"))]
