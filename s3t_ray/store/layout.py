"""Paths under a run's storage root. All paths are built and parsed here.

Paths are relative and posix. The functions that take a path say what it belongs to (a stage, a slice's hidden states),
as values. No other module parses a path.
"""

from __future__ import annotations

from dataclasses import dataclass

SLICES = "slices"
SLICE_INDEX = "slices/index.json"
STAGES = "stages"
CHECKPOINTS = "checkpoints"
HIDDEN = "hidden"
REJECTS = "rejects"
REPLAY = "replay"
LOG = "log"
"""The run's log as static files (c2sp.org/tlog-tiles); derived from no record."""
INPUT_SUMMARY = "input.json"
MANIFEST = "manifest.json"

_BASE_DIGITS = 16
"""Of the base digest, in the paths of hidden states."""


def kind_root(path: str) -> str:
    """The first folder of a path, which says what kind of data it holds."""
    return path.partition("/")[0]


def shard_folder(shard: int) -> str:
    """Folder name of a shard; the held-out data (`plan.stages.HOLDOUT_SHARD`, -1) has its own name."""
    return "holdout" if shard < 0 else str(shard)


def slice_folder(shard: int, slice_index: int) -> str:
    """Files of a slice's rows, as they are now and as they were."""
    return f"{SLICES}/{shard_folder(shard)}/{slice_index}"


def slice_file(shard: int, slice_index: int, sha256: str) -> str:
    """File of a slice's rows, named by its own bytes: a rewritten slice is another file."""
    return f"{slice_folder(shard, slice_index)}/{sha256}.parquet"


def stage_folder(stage_id: str) -> str:
    return f"{STAGES}/{stage_id}"


def checkpoint_folder(stage_id: str) -> str:
    """All checkpoints of a stage."""
    return f"{CHECKPOINTS}/{stage_id}"


def checkpoint_step_folder(stage_id: str, steps: int) -> str:
    """The checkpoint after so many optimizer steps; names sort by steps."""
    return f"{checkpoint_folder(stage_id)}/{steps:09d}"


def checkpoint_step_of(path: str) -> str:
    """The folder of the checkpoint that a file under `checkpoint_folder` is part of."""
    return "/".join(path.split("/")[:3])


def stage_of(path: str) -> str | None:
    """Id of the stage that a path under STAGES or CHECKPOINTS belongs to; None: of no stage."""
    root, _, rest = path.partition("/")
    return rest.partition("/")[0] or None if root in (STAGES, CHECKPOINTS) else None


@dataclass(frozen=True, order=True)
class HiddenPlace:
    """The stored hidden states of one slice, in one state of its data; below it, a folder a boundary."""

    base: str
    """The first digits of the base digest."""
    shard: str
    slice: str
    digest: str
    """Of the slice's records."""

    @property
    def folder(self) -> str:
        return f"{HIDDEN}/{self.base}/{self.shard}/{self.slice}/{self.digest}"

    def boundary(self, layer: int) -> str:
        """Folder of the states that enter `layer`."""
        return f"{self.folder}/layer-{layer}"


def hidden_place(base_digest: str, shard: int, slice_index: int, slice_digest: str) -> HiddenPlace:
    """Where the states of a slice are stored."""
    return HiddenPlace(base_digest[:_BASE_DIGITS], shard_folder(shard), str(slice_index), slice_digest)


def hidden_slice_folder(base_digest: str, shard: int, slice_index: int) -> str:
    """The states of a slice in all states of its data: a folder a digest."""
    return hidden_place(base_digest, shard, slice_index, "").folder.removesuffix("/")


def hidden_of(path: str) -> HiddenPlace | None:
    """Whose states a path under HIDDEN holds; None: not a path of hidden states."""
    match path.split("/"):
        case [root, base, shard, index, digest, *_] if root == HIDDEN:
            return HiddenPlace(base, shard, index, digest)
    return None
