"""What the training engine is asked to do and what it answers: frozen values, importable without torch.

In: nothing. Out: the classes that cross the border to the cluster runtime. Never holds a record or a weight.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SliceInput:
    """One slice of data a stage learns: where its retained rows lie and what they must be."""

    slice: int
    path: str  # store path of the Parquet file
    sha256: str  # of the file's bytes, in hex
    digest: str  # of the retained records, order-free (the ledger's)
    records: int  # rows in the file
    seal_key: str = field(repr=False)  # hex; seals what is derived from this slice in this state


@dataclass(frozen=True)
class StageJob:
    """One stage to train. Its depth is the number of slices."""

    stage_id: str
    recipe_digest: str
    base_digest: str
    shard: int
    slices: tuple[SliceInput, ...]  # in the order they were added; the last is the one this stage adds
    parents: tuple[str, ...]  # ids of stages 1..depth-1
    seal_key: str = field(repr=False)  # hex; seals what is made for this stage and no other

    @property
    def depth(self) -> int:
        return len(self.slices)

    @property
    def place(self) -> tuple[int, ...]:
        """Slice indices in the order they were added."""
        return tuple(piece.slice for piece in self.slices)


@dataclass(frozen=True)
class Progress:
    """What a stage has reached after an optimizer step."""

    stage_id: str
    step: int  # steps done, 1..steps
    steps: int
    loss: float  # mean over the labelled tokens of this step, all ranks
    tokens_per_second: float  # tokens fed in this step, all ranks, per second of this step


@dataclass(frozen=True)
class StageResult:
    """A stage that was trained and published."""

    stage_id: str
    adapter_sha256: str
    steps: int
    records: int  # records that had something to learn from
    tokens: int  # tokens fed over all epochs and ranks
    first_loss: float | None  # of the first step; None: the stage had no step
    last_loss: float | None
    seconds: float


class StageStopped(Exception):
    """The caller asked to stop (the stage's data was deleted): nothing was published, nothing is left behind."""

    def __init__(self, stage_id: str) -> None:
        self.stage_id = stage_id
        super().__init__(f"stage {stage_id} was stopped on request")

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.stage_id,)
