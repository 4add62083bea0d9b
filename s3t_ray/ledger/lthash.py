"""LtHash16: a digest of a set that records can join or leave without reading the others.

The state is 1024 numbers of 16 bits: the element-wise sum, modulo 2^16, of the BLAKE3 expansions
of the members' 32-byte digests (Bellare and Micciancio 1997; Lewi et al. 2019, eprint 2019/227), and the number of
members. It uses BLAKE3 instead of BLAKE2X because these sums take much of a deletion's time, and BLAKE3 needs a third
of the time of SHAKE-128. In: digests of records. Out: the state (2,048 bytes and a count) and its SHA-256. The same set
has the same state, in any order of joins and leaves.

It does not store members, so it cannot detect one that joins twice or leaves without having joined. The ledger's unique
ids prevent that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

ELEMENTS = 1024
STATE_BYTES = 2 * ELEMENTS
MEMBER_BYTES = 32
_DOMAIN = b"s3t/slice/2"
_BATCH = 256  # expansions per sum: half a MiB


class LtHash16:
    """A multiset of 32-byte digests, as a sum. Mutable; `state` and `members` are what to store."""

    __slots__ = ("_sum", "members")

    def __init__(self, state: bytes = bytes(STATE_BYTES), members: int = 0) -> None:
        if len(state) != STATE_BYTES:
            raise ValueError(f"an LtHash16 state has {STATE_BYTES} bytes, got {len(state)}")
        # Little-endian on every machine, so that a state can move between machines.
        self._sum: NDArray[np.uint16] = np.frombuffer(state, dtype="<u2").astype(np.uint16)
        self.members = members

    @property
    def state(self) -> bytes:
        """The sum, 2,048 bytes."""
        return self._sum.astype("<u2").tobytes()

    def add(self, digests: Iterable[bytes]) -> None:
        """Add digests."""
        total, count = _total(digests)
        self._sum = self._sum + total
        self.members += count

    def remove(self, digests: Iterable[bytes]) -> None:
        """Remove digests."""
        total, count = _total(digests)
        self._sum = self._sum - total
        self.members -= count

    def remove_sum(self, other: LtHash16) -> None:
        """Remove all members of another sum."""
        self._sum = self._sum - other._sum
        self.members -= other.members

    def digest(self) -> str:
        """SHA-256, in hex, of the state and the number of members."""
        return hashlib.sha256(_DOMAIN + self.state + self.members.to_bytes(8, "big", signed=True)).hexdigest()


def _total(digests: Iterable[bytes]) -> tuple[NDArray[np.uint16], int]:
    """Sum of the expansions, and their number."""
    total = np.zeros(ELEMENTS, dtype=np.uint16)
    count = 0
    stream = iter(digests)
    while batch := list(islice(stream, _BATCH)):
        if wrong := {len(digest) for digest in batch} - {MEMBER_BYTES}:
            raise ValueError(f"a member of an LtHash16 has {MEMBER_BYTES} bytes, got {min(wrong)}")
        expanded = b"".join([blake3(digest).digest(STATE_BYTES) for digest in batch])
        rows = np.frombuffer(expanded, dtype="<u2").reshape(len(batch), ELEMENTS)
        total += rows.sum(axis=0, dtype=np.uint16)
        count += len(batch)
    return total, count
