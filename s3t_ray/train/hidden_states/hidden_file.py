"""One file of stored hidden states: a safetensors file with one tensor, written and read row by row.

In: the states [tokens x D] of records, in the dtype of the computation. Out: the same bytes. Each row (the states of
one record) has its own digest, so it can be checked without reading the entire file. Rows are read with `preadv` into
the caller's buffer, which releases the GIL. Never changes a bit.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from s3t_ray.errors import TrainError

_TENSOR = "hidden"
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_TYPES = {name: kind for kind, name in _NAMES.items()}

DIGEST_BYTES = 16


def row_digest(states: Tensor) -> bytes:
    """The digest of one record's states."""
    return hashlib.sha256(_bytes_of(states)).digest()[:DIGEST_BYTES]


class PartWriter:
    """Appends rows to a file of known size, so that the slice never has to fit in memory. `tokens`: over all rows."""

    def __init__(self, path: Path, tokens: int) -> None:
        self.path = path
        self.digests: list[bytes] = []  # one per row written
        self._tokens = tokens
        self._started = False
        self._file: BinaryIO = path.open("wb")

    def append(self, states: Tensor) -> None:
        states = states.to("cpu").contiguous()
        if not self._started:
            self._start(states.dtype, states.shape[1])
        self._file.write(_bytes_of(states))
        self.digests.append(row_digest(states))

    def append_empty(self) -> None:
        """Append a record without tokens."""
        self.digests.append(bytes(DIGEST_BYTES))

    def close(self) -> None:
        if not self._started:
            self._start(torch.float32, 0)  # no row had tokens
        self._file.close()

    def _start(self, dtype: torch.dtype, hidden: int) -> None:
        size = self._tokens * hidden * dtype.itemsize
        tensor = {"dtype": _NAMES[dtype], "shape": [self._tokens, hidden], "data_offsets": [0, size]}
        header = json.dumps({_TENSOR: tensor}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        self._file.write(len(header).to_bytes(8, "little") + header)
        self._started = True


class PartReader:
    """Reads rows of one file. `name` identifies it in errors. Raises TrainError if the header is unreadable."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._file = path.open("rb", buffering=0)
        try:
            length = int.from_bytes(self._file.read(8), "little")
            tensor = json.loads(self._file.read(length))[_TENSOR]
            self.tokens, self.hidden = (int(size) for size in tensor["shape"])
            self.dtype = _TYPES[tensor["dtype"]]
        except (ValueError, KeyError, TypeError, MemoryError, OverflowError, RecursionError) as error:
            self.close()
            raise _damaged(name, "has no readable header") from error
        self._begin = 8 + length

    def read(self, start: int, out: Tensor, digest: bytes) -> None:
        """Fill `out` [tokens x D] with the states from token `start` on. Raises TrainError unless `digest` matches."""
        rest = memoryview(_bytes_of(out))
        place = self._begin + start * self.hidden * self.dtype.itemsize
        while rest:
            try:
                got = os.preadv(self._file.fileno(), [rest], place)
            except OSError as error:
                raise _damaged(self.name, f"cannot be read ({error.strerror})") from error
            if not got:
                raise _damaged(self.name, "ends before its last row")
            rest, place = rest[got:], place + got
        if row_digest(out) != digest:
            raise _damaged(self.name, f"does not hold what was stored at token {start}")

    def close(self) -> None:
        self._file.close()


def _bytes_of(states: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return memoryview(states.view(torch.uint8).numpy()).cast("B")


def _damaged(name: str, what: str) -> TrainError:
    return TrainError(
        f"{name} {what}",
        "the file is damaged or was changed outside the run: delete the run's folder `hidden` and train again",
    )
