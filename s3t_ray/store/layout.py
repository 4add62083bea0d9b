"""Builds and parses all paths under a run's storage root.

Paths are relative and POSIX. Functions that take a path return what it belongs to (a stage, a slice's hidden states) as
values. No other module parses paths.
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
"""The run's log as static files (c2sp.org/tlog-tiles). It is not derived from records."""
INPUT_SUMMARY = "input.json"
MANIFEST = "manifest.json"

_BASE_DIGITS = 16
"""Digits of the base digest in the paths of hidden states."""


def kind_root(path: str) -> str:
    """The first folder of a path, which determines the kind of data."""
    return path.partition("/")[0]


def shard_folder(shard: int) -> str:
    """The folder name of a shard. The held-out data (`plan.stages.HOLDOUT_SHARD`, -1) has a special name."""
    return "holdout" if shard < 0 else str(shard)


def slice_folder(shard: int, slice_index: int) -> str:
    """The folder of a slice's row files, in its current and earlier states."""
    return f"{SLICES}/{shard_folder(shard)}/{slice_index}"


def slice_file(shard: int, slice_index: int, sha256: str) -> str:
    """The file of a slice's rows, named by its digest, so that a rewritten slice is a different file."""
    return f"{slice_folder(shard, slice_index)}/{sha256}.parquet"


def stage_folder(stage_id: str) -> str:
    """The folder of a stage."""
    return f"{STAGES}/{stage_id}"


def checkpoint_folder(stage_id: str) -> str:
    """The folder of all checkpoints of a stage."""
    return f"{CHECKPOINTS}/{stage_id}"


def checkpoint_step_folder(stage_id: str, steps: int) -> str:
    """The folder of the checkpoint after `steps` optimizer steps. Names sort by steps."""
    return f"{checkpoint_folder(stage_id)}/{steps:09d}"


def checkpoint_step_of(path: str) -> str:
    """The checkpoint folder that contains a file under `checkpoint_folder`."""
    return "/".join(path.split("/")[:3])


def stage_of(path: str) -> str | None:
    """The id of the stage that a path under STAGES or CHECKPOINTS belongs to; None if there is none."""
    root, _, rest = path.partition("/")
    return rest.partition("/")[0] or None if root in (STAGES, CHECKPOINTS) else None


@dataclass(frozen=True, order=True)
class HiddenPlace:
    """The stored hidden states of one slice in one version of its data, with one folder per boundary."""

    base: str
    """The first digits of the base digest."""
    shard: str
    slice: str
    digest: str
    """The digest of the slice's records."""

    @property
    def folder(self) -> str:
        return f"{HIDDEN}/{self.base}/{self.shard}/{self.slice}/{self.digest}"

    def boundary(self, layer: int) -> str:
        """The folder of the states that enter `layer`."""
        return f"{self.folder}/layer-{layer}"


def hidden_place(base_digest: str, shard: int, slice_index: int, slice_digest: str) -> HiddenPlace:
    """The place of a slice's stored states."""
    return HiddenPlace(base_digest[:_BASE_DIGITS], shard_folder(shard), str(slice_index), slice_digest)


def hidden_slice_folder(base_digest: str, shard: int, slice_index: int) -> str:
    """The folder of a slice's states in all versions of its data, with one folder per digest."""
    return hidden_place(base_digest, shard, slice_index, "").folder.removesuffix("/")


def hidden_of(path: str) -> HiddenPlace | None:
    """The place of the states at a path under HIDDEN; None if it is not a path of hidden states."""
    match path.split("/"):
        case [root, base, shard, index, digest, *_] if root == HIDDEN:
            return HiddenPlace(base, shard, index, digest)
    return None
