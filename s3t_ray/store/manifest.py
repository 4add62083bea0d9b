"""The manifest of a published stage: its inputs, its files, and the machine that trained it.

In: a manifest.json from the store. Out: a strict frozen model. The manifest is the stage folder's marker and is written
last, so a stage with a readable manifest is complete. Contains only digests and counts, no personal data.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from s3t_ray.errors import StageDamaged
from s3t_ray.store.layout import MANIFEST, stage_folder
from s3t_ray.store.seal import Sealed

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
HEAD_FILE = "head.safetensors"


class SliceLearned(BaseModel):
    """One slice that the stage was trained on, with its digest at that time."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    index: int
    digest: str


class Manifest(Sealed):
    """The provenance of one stage. `files` maps every other file in the folder to its sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    stage_id: str
    shard: int
    slices: tuple[SliceLearned, ...]  # in the order they were added
    parents: tuple[str, ...]  # ids of stages 1..depth-1
    recipe_digest: str
    base_digest: str
    adapter_sha256: str
    files: dict[str, str]
    losses: tuple[float, ...]  # mean loss per labelled token of each step
    steps: int
    records: int  # records with at least one labelled target
    unlabelled: int  # records without one, such as a prompt truncated before its response
    tokens: int  # input tokens over all epochs
    seconds: float
    versions: dict[str, str]
    machine: dict[str, str]

    @property
    def depth(self) -> int:
        return len(self.slices)


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def parse_manifest(data: bytes, stage_id: str) -> Manifest:
    """Parse the manifest of this stage. Raises StageDamaged if it is invalid or belongs to another stage."""
    path = f"{stage_folder(stage_id)}/{MANIFEST}"
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise damaged(stage_id, f"{path} is not a manifest: {error.errors()[0]['msg']}") from error
    if manifest.stage_id != stage_id:
        raise damaged(stage_id, f"{path} describes stage {manifest.stage_id}")
    return manifest


def damaged(stage_id: str, what: str) -> StageDamaged:
    """The error for a damaged published stage, with the way to repair it."""
    folder = stage_folder(stage_id)
    return StageDamaged(
        f"stage {stage_id} is damaged: {what}",
        f"remove {folder} from the run's storage and run `s3t train`, which trains it again",
    )
