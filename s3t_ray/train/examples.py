"""Reads and checks a stage's slices, and turns each record into a training item.

In: slice files by path, sha256 and row count. Out: training items, in no particular order. A file whose bytes are not
the expected ones fails the stage: the stage id names the data, so training on other data would break exactness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3t_ray.config.schema import Task
from s3t_ray.data.images.image_transform import Picture
from s3t_ray.data.readers.inputs import TeachesNothing, encode
from s3t_ray.data.slices import Row, read_slice
from s3t_ray.errors import TrainError
from s3t_ray.store.store import Store
from s3t_ray.train.job import SliceInput
from s3t_ray.train.task_models.task_model import TaskModel, task_model

IGNORED = -100

Tokens = NDArray[np.int32]  # four bytes per token, because a stage keeps the tokens of all its records in memory
Targets = NDArray[np.int32] | NDArray[np.float32]
TokenTypes = NDArray[np.int8]


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One record, ready for training."""

    id: str
    slice: int  # index of its slice
    row: int  # its row in the slice file
    tokens: Tokens  # the input: all tokens up to the last one that predicts something
    targets: Targets  # the target of each of the first positions, or IGNORED
    labelled: int  # number of targets that the loss counts
    token_types: TokenTypes | None = None  # 1 in the second text of a pair; None: all are 0
    picture: Picture | None = None  # the image, if the record has one; then only the number of tokens matters

    @property
    def counted(self) -> NDArray[np.intp]:
        """The positions whose targets the loss counts."""
        if self.targets.dtype.kind == "f":
            return np.arange(len(self.targets))
        return np.flatnonzero(self.targets != IGNORED)


def make_item(
    record_id: str,
    slice_index: int,
    row: int,
    tokens: Sequence[int],
    targets: Sequence[float],
    token_types: Sequence[int] = (),
    picture: Picture | None = None,
) -> Item:
    """The item of one record, with its labelled targets counted."""
    values = bool(targets) and isinstance(targets[0], float)  # numbers, not classes or tokens
    if values:
        told: Targets = np.asarray(targets, dtype=np.float32)
        counted = len(targets)
    else:
        told = np.asarray(targets, dtype=np.int32)
        counted = sum(target != IGNORED for target in targets)
    types = np.asarray(token_types, dtype=np.int8) if token_types else None
    return Item(record_id, slice_index, row, np.asarray(tokens, dtype=np.int32), told, counted, types, picture)


@dataclass(frozen=True)
class SliceItems:
    """One checked slice, with an item for every row, including rows without a labelled target."""

    input: SliceInput
    items: tuple[Item, ...]
    digests: tuple[bytes, ...]  # keyed digest of the record in each row


def read_items(store: Store, piece: SliceInput, tokenizer: Any, task: Task, cache: Path) -> SliceItems:
    """Check and read one slice. Raises TrainError, with the file's name, if its bytes or row count are wrong."""
    local = store.fetch(piece.path, cache)
    check_sha256(local, piece.sha256, piece.path)
    model = task_model(task)
    items: list[Item] = []
    digests: list[bytes] = []
    for row, record in enumerate(read_slice(local)):
        items.append(_item(record, piece.slice, row, tokenizer, model))
        digests.append(record.digest)
    if len(items) != piece.records:
        raise TrainError(
            f"slice file {piece.path} has {len(items)} rows, expected {piece.records}",
            "the ledger and the storage disagree: restore the file, or ingest again",
        )
    return SliceItems(piece, tuple(items), tuple(digests))


def check_sha256(local: Path, expected: str, name: str) -> None:
    """Raise TrainError if the file's bytes are not those that the ledger or the manifest recorded."""
    with local.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise TrainError(
            f"{name} has sha256 {found[:16]}..., expected {expected[:16]}...",
            "the file is damaged or was changed outside the run: restore it from a copy, or purge and train again",
        )


def to_learn(slices: Sequence[SliceItems]) -> list[Item]:
    """The items with at least one labelled target. A prompt truncated before its response has none."""
    return [item for piece in slices for item in piece.items if item.labelled]


def _item(record: Row, slice_index: int, row: int, tokenizer: Any, task: TaskModel) -> Item:
    try:
        example = encode(record.content, tokenizer, task.task)
    except TeachesNothing:  # the prompt fills all of task.max_tokens; the manifest counts the record as unlabelled
        return make_item(record.id, slice_index, row, (), ())
    tokens, targets = task.targets(example)
    return make_item(record.id, slice_index, row, tokens, targets, example.token_types, example.picture)
