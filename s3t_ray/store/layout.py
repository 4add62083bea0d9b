"""Where things lie under a run's storage root: every path in one place, relative and posix."""

from __future__ import annotations

SLICES = "slices"
SLICE_INDEX = "slices/index.json"
STAGES = "stages"
CHECKPOINTS = "checkpoints"
HIDDEN = "hidden"
REJECTS = "rejects"
REPLAY = "replay"
INPUT_SUMMARY = "input.json"
MANIFEST = "manifest.json"


def shard_folder(shard: int) -> str:
    """Folder name of a shard; the held-out data (`plan.stages.HOLDOUT_SHARD`, -1) has a name of its own."""
    return "holdout" if shard < 0 else str(shard)


def slice_file(shard: int, slice_index: int, sha256: str) -> str:
    """File of a slice's rows, named by its own bytes: a rewritten slice is another file."""
    return f"{SLICES}/{shard_folder(shard)}/{slice_index}/{sha256}.parquet"


def stage_folder(stage_id: str) -> str:
    return f"{STAGES}/{stage_id}"


def checkpoint_folder(stage_id: str) -> str:
    return f"{CHECKPOINTS}/{stage_id}"
