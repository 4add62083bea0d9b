"""The Merkle hash tree of RFC 6962: leaves and nodes, appending, inclusion and consistency proofs.

In: leaf hashes, 32 bytes each. Out: roots and proofs, and verification of proofs. Pure. A tree of n leaves splits at
the largest power of two below n, so a subtree of 2^k leaves never changes once it is full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
"""The root of the empty tree (RFC 6962, section 2.1)."""

SubtreeRoot = Callable[[int, int], bytes]
"""(level, index) -> root of the full subtree of 2^level leaves that starts at leaf index * 2^level."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry. Leaves and nodes have different prefixes, so neither can be passed off as the other."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def full_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """The full subtrees that cover leaves [start, end), from left to right, largest first: (level, index).

    `start` must be a multiple of the size of the largest one, as it is for every subtree of the tree.
    """
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def range_root(start: int, end: int, subtree: SubtreeRoot) -> bytes:
    """The root of the subtree over leaves [start, end), from the roots of its full subtrees."""
    if start == end:
        return EMPTY_ROOT
    *others, last = full_subtrees(start, end)
    root = subtree(*last)
    for level, index in reversed(others):
        root = node_hash(subtree(level, index), root)
    return root


def inclusion_path(index: int, size: int, subtree: SubtreeRoot) -> list[bytes]:
    """The proof that leaf `index` is in the tree of `size` leaves: sibling hashes from the leaf up.

    Raises ValueError if `index` is out of range.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_root(middle, end, subtree))
            end = middle
        else:
            path.append(range_root(start, middle, subtree))
            start = middle
    return path[::-1]


def consistency_path(old: int, new: int, subtree: SubtreeRoot) -> list[bytes]:
    """The proof that the tree of `new` leaves extends the tree of `old` leaves (RFC 6962, section 2.1.2).

    Raises ValueError unless 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves cannot begin with {old}")
    if old in (0, new):
        return []
    path: list[bytes] = []
    start, end, whole = 0, new, True  # whole: the old tree covers all of [0, old), so its root is known
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(range_root(middle, end, subtree))
            end = middle
        else:
            path.append(range_root(start, middle, subtree))
            start, whole = middle, False
    if not whole:
        path.append(range_root(start, end, subtree))
    return path[::-1]


def root_of_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root of the tree of `size` leaves if `path` proves `leaf` at `index`; None: the path has the wrong length."""
    if not 0 <= index < size:
        return None
    root, rest = leaf, list(path)
    last = size - 1
    while last > 0:
        if index % 2 == 1 or index == last:
            # At the right edge, skip levels without a sibling.
            while index % 2 == 0 and last > 0:
                index, last = index >> 1, last >> 1
            if last == 0:
                break
            if not rest:
                return None
            root = node_hash(rest.pop(0), root)
        else:
            if not rest:
                return None
            root = node_hash(root, rest.pop(0))
        index, last = index >> 1, last >> 1
    return root if not rest else None


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the tree (new, new_root) extends the tree (old, old_root) (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    if old == new:
        return not path and old_root == new_root
    rest = list(path)
    if old & (old - 1) == 0:
        rest.insert(0, old_root)
    if not rest:
        return False
    number, last = old - 1, new - 1
    while number % 2 == 1:
        number, last = number >> 1, last >> 1
    first = second = rest[0]
    for each in rest[1:]:
        if last == 0:
            return False
        if number % 2 == 1 or number == last:
            first, second = node_hash(each, first), node_hash(each, second)
            while number % 2 == 0 and number != 0:
                number, last = number >> 1, last >> 1
        else:
            second = node_hash(second, each)
        number, last = number >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


class CompactRange:
    """The right edge of a growing tree: the roots of its full subtrees, enough to append and to compute the root."""

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        """`roots`: of the full subtrees of `size` leaves, largest first. Raises ValueError if their number is wrong."""
        if size < 0 or len(roots) != size.bit_count() or any(len(root) != HASH_BYTES for root in roots):
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} full subtrees, not {len(roots)}")
        self.size = size
        self._roots = list(roots)

    @property
    def roots(self) -> tuple[bytes, ...]:
        return tuple(self._roots)

    def append(self, leaf: bytes) -> None:
        """Append a leaf hash. Computes as many hashes as `size` has trailing one bits."""
        size = self.size
        while size & 1:
            leaf = node_hash(self._roots.pop(), leaf)
            size >>= 1
        self._roots.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self._roots:
            return EMPTY_ROOT
        root = self._roots[-1]
        for each in reversed(self._roots[:-1]):
            root = node_hash(each, root)
        return root


def _split(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)
