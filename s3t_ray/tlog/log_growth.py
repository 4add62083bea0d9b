"""Extends a published log: computes the files to write next from its signed head and its static files.

In: the head that was signed last, the entries that follow it, and a reader of the log's files. Out: the new head and
the files that it needs. Pure, except for the reader. Files are used only if they lead to the head's root, so someone
who can write the files but cannot sign has no influence on what is signed next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3t_ray.errors import VerificationFailed
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.merkle import CompactRange, full_subtrees, inclusion_path, leaf_hash, root_of_inclusion
from s3t_ray.tlog.tiles import WIDTH, Read, TiledLog, bundle_path, new_files, unbundled


@dataclass(frozen=True)
class Growth:
    """The next head, and the files to write before it is signed and published."""

    head: LogHead
    files: tuple[tuple[str, bytes], ...]


def grown(old: LogHead, entries: Sequence[bytes], read: Read) -> Growth:
    """Append these entries to the log of `old`. Raises VerificationFailed if its files do not match its root.

    Errors of `read` are passed on.
    """
    known: dict[str, bytes] = {}

    def once(path: str) -> bytes:
        """Read each file only once, so that the checked bytes are the ones used."""
        return known[path] if path in known else known.setdefault(path, read(path))

    log = TiledLog(old.size, once)
    tree = CompactRange(old.size, [log.subtree(*place) for place in full_subtrees(0, old.size)])
    if tree.root() != old.root:
        raise VerificationFailed(
            f"the files of log {old.origin} do not have the root of its checkpoint of {old.size} entries",
            "restore the log's files from a copy; its owner can also recreate them",
        )
    if width := old.size % WIDTH:
        start = old.size - width
        rows = unbundled(once(bundle_path(start // WIDTH, width)))
        if [leaf_hash(row) for row in rows] != [log.subtree(0, start + number) for number in range(width)]:
            raise VerificationFailed(
                f"the newest entries of log {old.origin} are not those of its tree", "restore the log's files"
            )
    for entry in entries:
        tree.append(leaf_hash(entry))
    return Growth(LogHead(old.origin, tree.size, tree.root()), tuple(new_files(old.size, entries, once)))


def stands_at(head: LogHead, index: int, entry: bytes, read: Read) -> bool:
    """Whether the tree of `head` has this entry at `index`, according to the log's files."""
    if not 0 <= index < head.size:
        return False
    path = inclusion_path(index, head.size, TiledLog(head.size, read).subtree)
    return root_of_inclusion(leaf_hash(entry), index, head.size, path) == head.root
