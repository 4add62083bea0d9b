"""The Merkle tree over a log's entries, in memory: its head and its proofs.

In: entries as bytes, in order. Out: checkpoint texts, inclusion and consistency proofs, and the log's static files.
Pure. A log of a million entries takes about 64 MiB and two seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.log_proof import LogProof
from s3t_ray.tlog.merkle import consistency_path, inclusion_path, leaf_hash, node_hash, range_root
from s3t_ray.tlog.signed_note import SignedNote
from s3t_ray.tlog.tiles import new_files


class EntryTree:
    """The tree of log `origin` over these entries."""

    def __init__(self, origin: str, entries: Sequence[bytes]) -> None:
        self.origin = origin
        self._entries = tuple(entries)
        self._levels = [[leaf_hash(entry) for entry in entries]]
        while len(below := self._levels[-1]) > 1:
            pairs = zip(
                below[::2], below[1::2], strict=False
            )  # a last hash without a sibling is not part of a full subtree
            self._levels.append([node_hash(left, right) for left, right in pairs])

    @property
    def size(self) -> int:
        return len(self._entries)

    def head(self, size: int | None = None) -> LogHead:
        """The size and root of the tree now, or when it had `size` entries."""
        count = self.size if size is None else size
        return LogHead(self.origin, count, range_root(0, count, self.subtree))

    def proof(self, index: int, checkpoint: SignedNote) -> LogProof:
        """The proof that entry `index` is in the tree of this checkpoint, which must be one of this log."""
        head = LogHead.parse(checkpoint.text)
        return LogProof(index, tuple(inclusion_path(index, head.size, self.subtree)), checkpoint)

    def consistency(self, old_size: int) -> list[bytes]:
        """The proof that the current tree extends the tree of `old_size` entries."""
        return consistency_path(old_size, self.size, self.subtree)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """The log as static files (c2sp.org/tlog-tiles), without its checkpoint."""
        return new_files(0, self._entries, _nothing_before)

    def subtree(self, level: int, index: int) -> bytes:
        """The root of the full subtree of 2^level leaves at `index` (a `merkle.SubtreeRoot`)."""
        return self._levels[level][index]


def _nothing_before(path: str) -> bytes:
    raise AssertionError(f"a log that begins has no {path}")
