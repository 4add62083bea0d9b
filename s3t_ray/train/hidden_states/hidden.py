"""Stored hidden states: the input of a layer group, computed once per record from the base model.

The groups below the one in training have no adapter, so these states are the same for every epoch, sequence and stage.
Each record is computed alone, in a batch of one, so its states depend only on the record and the base. They are stored
in the dtype of the computation and are restored bit for bit, whichever boundaries are stored.

In: a checked slice and the base without adapters. Out: `hidden/<base>/<shard>/<slice>/<slice digest>/<layer>/` in the
store. There is one folder per boundary, usable without the others, with one safetensors file per rank; the manifest is
written last. The states are personal data: purging a slice purges all its folders.
Legend: D hidden size; a boundary is the index of the layer that the states enter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from s3t_ray.errors import TrainError
from s3t_ray.store.layout import MANIFEST, hidden_place
from s3t_ray.store.seal import is_sealed_with, seal
from s3t_ray.store.store import Store
from s3t_ray.train.examples import Item, SliceItems, make_item
from s3t_ray.train.fence import is_overtaken
from s3t_ray.train.hidden_states.hidden_file import DIGEST_BYTES, PartReader, PartWriter
from s3t_ray.train.hidden_states.hidden_manifest import HiddenManifest, part_name
from s3t_ray.train.job import StageJob
from s3t_ray.train.ranks import Group


class SliceStates:
    """The stored states of one slice at one boundary, read from open files."""

    def __init__(self, manifest: HiddenManifest, parts: Sequence[PartReader]) -> None:
        self._parts = parts
        self._digests = [bytes.fromhex(digest) for digest in manifest.digests]
        self._starts = [0] * len(manifest.lengths)  # offset of each row in its part, in tokens
        self._lengths = manifest.lengths
        for part in range(manifest.parts):
            ends = list(accumulate(manifest.lengths[part :: manifest.parts]))
            self._starts[part :: manifest.parts] = [0, *ends][: len(ends)]

    def read(self, row: int, out: Tensor) -> None:
        """Fill `out` [tokens x D] with the states of one row of the slice. Raises TrainError if they are damaged."""
        if len(out):
            self._parts[row % len(self._parts)].read(self._starts[row], out, self._digests[row])

    def of(self, row: int) -> Tensor:
        """The states [tokens x D] of one row of the slice. Raises TrainError if they are damaged."""
        part = self._parts[row % len(self._parts)]
        out = torch.empty(self._lengths[row], part.hidden, dtype=part.dtype)
        self.read(row, out)
        return out

    def close(self) -> None:
        for part in self._parts:
            part.close()


class HiddenStore:
    """Creates and opens stored states for one worker group."""

    def __init__(self, store: Store, group: Group) -> None:
        self._store = store
        self._group = group

    def has(self, job: StageJob, piece: SliceItems, boundary: int) -> bool:
        """Whether every rank sees usable states at this boundary (another group may be writing them right now)."""
        return not self._group.any(self._manifest(job, piece, boundary) is None)

    def make(
        self,
        job: StageJob,
        piece: SliceItems,
        boundaries: Sequence[int],
        states_of: Callable[[Item], Mapping[int, Tensor]],
        work: Path,
        should_stop: Callable[[], bool],
    ) -> bool:
        """Store the slice's states at these boundaries. Returns False, with nothing stored, if any rank must stop.

        `states_of` returns the states [tokens x D] of one record by boundary. Every rank calls it the same number of
        times, because it may be a collective. Two groups that process the same slice store the same bytes.
        """
        for boundary in boundaries:
            folder = self._folder(job, piece, boundary)
            if self._group.rank == 0 and self._manifest(job, piece, boundary) is None:
                self._store.delete(folder)  # anything there belongs to another recipe, so no group can use it
        mine = piece.items[self._group.rank :: self._group.world]
        rounds = -(-len(piece.items) // self._group.world)
        idle = make_item("", piece.input.slice, -1, (0,), (0,))
        tokens = sum(len(item.tokens) for item in mine)
        writers = {boundary: PartWriter(work / f"{boundary}-{self._part_name()}", tokens) for boundary in boundaries}
        try:
            for turn in range(rounds):
                if self._group.any(should_stop()):
                    return False
                item = mine[turn] if turn < len(mine) else idle
                empty = item is idle or not len(item.tokens)
                states = states_of(idle if empty else item) if not empty or self._group.world > 1 else {}
                for boundary, writer in writers.items():
                    if empty:
                        writer.append_empty()
                    else:
                        writer.append(states[boundary])
        finally:
            for writer in writers.values():
                writer.close()
        if self._group.any(should_stop() or is_overtaken(self._store, job)):
            return False
        for boundary, writer in writers.items():
            self._upload(job, piece, boundary, writer)
        # If this process was suspended, it may have written after the purge erased the states: check again.
        if self._group.any(is_overtaken(self._store, job)):
            for boundary in boundaries if self._group.rank == 0 else ():
                self._store.delete(self._folder(job, piece, boundary))
            return False
        return True

    def open(self, job: StageJob, piece: SliceItems, boundary: int, cache: Path) -> SliceStates:
        """Open the stored states of a slice. Each row is checked when it is read. The caller must close the result.

        Raises TrainError if the states are missing or have no readable header.
        """
        manifest = self._manifest(job, piece, boundary)
        folder = self._folder(job, piece, boundary)
        if manifest is None:
            raise TrainError(f"{folder} vanished while stage {job.stage_id} was training", "train the stage again")
        parts: list[PartReader] = []
        try:
            for part in range(manifest.parts):
                path = f"{folder}/{part_name(part)}"
                parts.append(PartReader(self._store.fetch(path, cache), path))
        except TrainError:
            for opened in parts:
                opened.close()
            raise
        return SliceStates(manifest, parts)

    def _upload(self, job: StageJob, piece: SliceItems, boundary: int, writer: PartWriter) -> None:
        """Upload each rank's part, then the manifest from rank 0."""
        folder = self._folder(job, piece, boundary)
        self._store.upload(writer.path, f"{folder}/{self._part_name()}")
        writer.path.unlink()
        if is_overtaken(self._store, job):  # before the barrier: as in `save_checkpoint`
            self._store.delete(folder)
        everyone = self._group.gather(b"".join(writer.digests))  # also the barrier: all parts are there
        if self._group.rank == 0:
            digests = [
                everyone[row % self._group.world][DIGEST_BYTES * (row // self._group.world) :][:DIGEST_BYTES].hex()
                for row in range(len(piece.items))
            ]
            manifest = HiddenManifest(
                recipe_digest=job.recipe_digest,
                base_digest=job.base_digest,
                slice_sha256=piece.input.sha256,
                boundary=boundary,
                lengths=tuple(len(item.tokens) for item in piece.items),
                digests=tuple(digests),
                parts=self._group.world,
            )
            manifest = seal(manifest, piece.input.seal_key)
            self._store.write_bytes(f"{folder}/{MANIFEST}", manifest.model_dump_json().encode())
        self._group.sum(0.0)  # barrier: no rank reads before the manifest exists

    def _manifest(self, job: StageJob, piece: SliceItems, boundary: int) -> HiddenManifest | None:
        """The manifest, if the states are usable: same recipe, same base and exactly this slice file. Else None."""
        path = f"{self._folder(job, piece, boundary)}/{MANIFEST}"
        if not self._store.exists(path):
            return None
        try:
            manifest = HiddenManifest.model_validate_json(self._store.read_bytes(path))
        except ValidationError:
            return None  # another format: the states are computed again
        wanted = (job.recipe_digest, job.base_digest, piece.input.sha256, boundary)
        found = (manifest.recipe_digest, manifest.base_digest, manifest.slice_sha256, manifest.boundary)
        lengths = tuple(len(item.tokens) for item in piece.items)
        if found != wanted or manifest.lengths != lengths or not is_sealed_with(manifest, piece.input.seal_key):
            return None  # a manifest without this run's seal could be used to manipulate training
        return manifest

    @staticmethod
    def _folder(job: StageJob, piece: SliceItems, boundary: int) -> str:
        return hidden_place(job.base_digest, job.shard, piece.input.slice, piece.input.digest).boundary(boundary)

    def _part_name(self) -> str:
        return part_name(self._group.rank)
