"""Stored hidden states: what enters a layer group, computed once a record from the base alone.

Groups below the one in training have no adapter, so these states are the same for every epoch, sequence and stage.
Each record is computed alone (a batch of one): its states depend on nothing but the record and the base.

In: a checked slice and the base at rest. Out: `hidden/<base>/<shard>/<slice>/<slice digest>/` in the store, one
safetensors file a boundary and rank, the manifest last. These are personal data: whoever purges the slice purges
this folder. Legend: D hidden size; a boundary is the index of the layer that the states enter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from s3t_ray.errors import TrainError
from s3t_ray.store.store import Store
from s3t_ray.train.examples import Item, SliceItems, check_sha256, make_item
from s3t_ray.train.job import StageJob
from s3t_ray.train.manifest import MANIFEST
from s3t_ray.train.ranks import Group

_TENSOR = "hidden"
_TYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}


class HiddenManifest(BaseModel):
    """What a folder of stored states was made from. Rows p, p + parts, ... of the slice lie in part p."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    recipe_digest: str
    base_digest: str
    slice_sha256: str
    boundaries: tuple[int, ...]
    lengths: tuple[int, ...]  # tokens of each row
    parts: int
    files: dict[str, str]  # name -> sha256


@dataclass(frozen=True)
class SliceStates:
    """The stored states of one slice at one boundary, read from memory-mapped files."""

    lengths: tuple[int, ...]
    starts: tuple[int, ...]  # of each row in its part, in tokens
    parts: tuple[Any, ...]  # safetensors slices

    def of(self, row: int) -> Tensor:
        """States [tokens x D] of one row of the slice."""
        start = self.starts[row]
        states: Tensor = self.parts[row % len(self.parts)][start : start + self.lengths[row]]
        return states


def hidden_folder(base_digest: str, shard: int, slice_index: int, slice_digest: str) -> str:
    """Where the states of a slice, in one state of its data, lie in the store."""
    return f"hidden/{base_digest[:16]}/{shard}/{slice_index}/{slice_digest}"


class HiddenStore:
    """Makes and opens stored states for one worker group."""

    def __init__(self, store: Store, boundaries: Sequence[int], group: Group) -> None:
        """`boundaries`: the layers whose entering states are kept, all from one forward pass."""
        self._store = store
        self._boundaries = tuple(boundaries)
        self._group = group

    def has(self, job: StageJob, piece: SliceItems) -> bool:
        """Whether every rank sees usable states of this slice (another group may be storing them just now)."""
        return not self._group.any(self._manifest(job, piece) is None)

    def make(
        self,
        job: StageJob,
        piece: SliceItems,
        states_of: Callable[[Item], dict[int, Tensor]],
        work: Path,
        should_stop: Callable[[], bool],
    ) -> bool:
        """Have the states of a slice in the store; False if a rank was asked to stop (nothing is published).

        `states_of` returns the states [tokens x D] of one record by boundary; every rank calls it equally
        often, because it may be collective. Two groups at work on one slice store the same bytes.
        """
        if self.has(job, piece):
            return True
        folder = self._folder(job, piece)
        stored = self._group.rank == 0 and self._store.exists(f"{folder}/{MANIFEST}")
        if stored and self._manifest(job, piece) is None:
            self._store.delete(folder)  # of another recipe, so of no use to any group
        mine = piece.items[self._group.rank :: self._group.world]
        rounds = -(-len(piece.items) // self._group.world)
        idle = make_item("", piece.input.slice, 0, (0,), (0,))
        tokens = sum(len(item.tokens) for item in mine)
        writers = {
            boundary: _PartWriter(work / self._part_name(boundary, self._group.rank), tokens)
            for boundary in self._boundaries
        }
        try:
            for turn in range(rounds):
                if self._group.any(should_stop()):
                    return False
                item = mine[turn] if turn < len(mine) else idle
                empty = item is idle or not len(item.tokens)
                if not empty or self._group.world > 1:
                    states = states_of(idle if empty else item)
                    if not empty:
                        for boundary, writer in writers.items():
                            writer.append(states[boundary])
        finally:
            for writer in writers.values():
                writer.close()
        if self._group.any(should_stop()):
            return False
        self._upload(job, piece, folder, writers)
        return True

    def open(self, job: StageJob, piece: SliceItems, boundary: int, cache: Path) -> SliceStates:
        """The stored states of a slice, checked against their manifest. TrainError if a file is damaged."""
        manifest = self._manifest(job, piece)
        folder = self._folder(job, piece)
        if manifest is None:
            raise TrainError(f"{folder} vanished during stage {job.stage_id}", "train the stage again")
        parts = []
        for part in range(manifest.parts):
            name = self._part_name(boundary, part)
            local = self._store.fetch(f"{folder}/{name}", cache)
            check_sha256(local, manifest.files[name], f"{folder}/{name}")
            parts.append(safetensors.safe_open(local, "pt").get_slice(_TENSOR))
        starts = [0] * len(manifest.lengths)
        for part in range(manifest.parts):
            ends = list(accumulate(manifest.lengths[part :: manifest.parts]))
            starts[part :: manifest.parts] = [0, *ends][: len(ends)]
        return SliceStates(manifest.lengths, tuple(starts), tuple(parts))

    def _upload(self, job: StageJob, piece: SliceItems, folder: str, writers: Mapping[int, _PartWriter]) -> None:
        """Each rank its parts, then rank 0 the manifest."""
        digests = []
        for boundary, writer in writers.items():
            self._store.upload(writer.path, f"{folder}/{self._part_name(boundary, self._group.rank)}")
            digests.append(writer.sha256())
            writer.path.unlink()
        everyone = self._group.gather(b"".join(digests))  # also the barrier: all parts are there
        files = {
            self._part_name(boundary, rank): joined[32 * at : 32 * (at + 1)].hex()
            for rank, joined in enumerate(everyone)
            for at, boundary in enumerate(self._boundaries)
        }
        manifest = HiddenManifest(
            recipe_digest=job.recipe_digest,
            base_digest=job.base_digest,
            slice_sha256=piece.input.sha256,
            boundaries=self._boundaries,
            lengths=tuple(len(item.tokens) for item in piece.items),
            parts=self._group.world,
            files=files,
        )
        if self._group.rank == 0:
            self._store.write_bytes(f"{folder}/{MANIFEST}", manifest.model_dump_json().encode())
        self._group.sum(0.0)  # nobody reads before the manifest is there

    def _manifest(self, job: StageJob, piece: SliceItems) -> HiddenManifest | None:
        """The manifest of usable states: of this recipe, this base and exactly this slice file."""
        path = f"{self._folder(job, piece)}/{MANIFEST}"
        if not self._store.exists(path):
            return None
        try:
            manifest = HiddenManifest.model_validate_json(self._store.read_bytes(path))
        except ValidationError:
            return None  # an older format: made again
        wanted = (job.recipe_digest, job.base_digest, piece.input.sha256, self._boundaries)
        found = (manifest.recipe_digest, manifest.base_digest, manifest.slice_sha256, manifest.boundaries)
        lengths = tuple(len(item.tokens) for item in piece.items)
        return manifest if found == wanted and manifest.lengths == lengths else None

    @staticmethod
    def _folder(job: StageJob, piece: SliceItems) -> str:
        return hidden_folder(job.base_digest, job.shard, piece.input.slice, piece.input.digest)

    @staticmethod
    def _part_name(boundary: int, part: int) -> str:
        return f"layer-{boundary}-part-{part}.safetensors"


class _PartWriter:
    """Appends rows to a safetensors file whose size is known beforehand, so that a slice never stands in memory."""

    def __init__(self, path: Path, tokens: int) -> None:
        self.path = path
        self._tokens = tokens
        self._hasher = hashlib.sha256()
        self._started = False
        self._file: BinaryIO = path.open("wb")

    def append(self, states: Tensor) -> None:
        states = states.to("cpu").contiguous()
        if not self._started:
            self._start(states.dtype, states.shape[1])
        self._write(states.view(torch.uint8).numpy().tobytes())

    def close(self) -> None:
        if not self._started:
            self._start(torch.float32, 0)  # no row has tokens
        self._file.close()

    def sha256(self) -> bytes:
        return self._hasher.digest()

    def _start(self, dtype: torch.dtype, hidden: int) -> None:
        size = self._tokens * hidden * dtype.itemsize
        tensor = {"dtype": _TYPE_NAMES[dtype], "shape": [self._tokens, hidden], "data_offsets": [0, size]}
        header = json.dumps({_TENSOR: tensor}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        self._write(len(header).to_bytes(8, "little") + header)
        self._started = True

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hasher.update(data)
