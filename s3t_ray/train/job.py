"""The requests to the training engine and its results: frozen values, importable without torch.

These classes cross the boundary to the cluster runtime. They never hold a record or a weight.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SliceInput:
    """One slice of data that a stage is trained on: its file of retained rows, and the expected contents."""

    slice: int
    path: str  # store path of the Parquet file
    sha256: str  # of the file's bytes, in hex
    digest: str  # of the retained records in any order, from the ledger
    records: int  # rows in the file
    seal_key: str = field(repr=False)  # hex; seals data derived from the current contents of this slice


@dataclass(frozen=True)
class StageJob:
    """One stage to train. Its depth is the number of slices."""

    stage_id: str
    recipe_digest: str
    base_digest: str
    shard: int
    slices: tuple[SliceInput, ...]  # in the order they were added; this stage adds the last one
    parents: tuple[str, ...]  # ids of stages 1..depth-1
    seal_key: str = field(repr=False)  # hex; seals files that belong to this stage only

    @property
    def depth(self) -> int:
        return len(self.slices)

    @property
    def place(self) -> tuple[int, ...]:
        """Slice indices in the order they were added."""
        return tuple(piece.slice for piece in self.slices)


@dataclass(frozen=True)
class Progress:
    """The progress of a stage after an optimizer step."""

    stage_id: str
    step: int  # completed steps, 1..steps
    steps: int
    loss: float  # mean over the labelled tokens of this step, all ranks
    tokens_per_second: float  # in this step, over all ranks


@dataclass(frozen=True)
class StageResult:
    """A stage that was trained and published."""

    stage_id: str
    adapter_sha256: str
    steps: int
    records: int  # records with at least one labelled target
    tokens: int  # input tokens over all epochs and ranks
    first_loss: float | None  # of the first step; None: the stage had no steps
    last_loss: float | None
    seconds: float


class StageStopped(Exception):
    """The caller stopped the stage because its data was deleted. Nothing was published and nothing remains."""

    def __init__(self, stage_id: str) -> None:
        self.stage_id = stage_id
        super().__init__(f"stage {stage_id} was stopped on request")

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.stage_id,)
