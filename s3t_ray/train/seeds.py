"""Derives all randomness of a stage from hashes of the stage's place. Pure and independent of history.

In: the config's seed, the shard, the slices in the order they were added. Out: seeds and sort keys. The stage id is
not an input: it depends on secret keys through the slice digests, and training from scratch on the retained data must
give the same bytes with any keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class StagePlace:
    """The position of a stage in the plan: the only input to its random choices."""

    seed: int
    shard: int
    slices: tuple[int, ...]

    def initial(self, tensor_name: str) -> int:
        """The seed for the initial values of one tensor."""
        return self._hash("initial", tensor_name)

    def dropout(self, step: int, rank: int) -> int:
        """The seed for the dropout masks of one rank in one step. A resumed stage needs no generator state."""
        return self._hash("dropout", str(step), str(rank))

    def order(self, epoch: int, record_id: str) -> bytes:
        """The sort key of a record in an epoch. Removing a record does not reorder the others."""
        return self._digest("order", str(epoch), record_id)

    def _hash(self, *fields: str) -> int:
        return int.from_bytes(self._digest(*fields)[:8], "big") >> 1  # torch takes seeds below 2**63

    def _digest(self, *fields: str) -> bytes:
        hasher = hashlib.blake2b(digest_size=16, person=b"s3t/train/1")
        place = (str(self.seed), str(self.shard), ",".join(map(str, self.slices)))
        for field in (*place, *fields):
            data = field.encode()
            hasher.update(len(data).to_bytes(8, "big"))
            hasher.update(data)
        return hasher.digest()
