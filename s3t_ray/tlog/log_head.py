"""Checkpoints (c2sp.org/tlog-checkpoint): the head of a log, as the text of a signed note.

In: origin, size and root of a tree. Out: the text, and back. Pure. The origin names one log permanently: a checkpoint
of one run cannot be used for another's.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from s3t_ray.errors import VerificationFailed
from s3t_ray.tlog.merkle import HASH_BYTES
from s3t_ray.tlog.signed_note import SignedNote, VerifierKey

MAX_SIZE = 2**63 - 1
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class LogHead:
    """The size and root of the tree of log `origin` at one time."""

    origin: str
    size: int  # leaves
    root: bytes  # 32 bytes

    def text(self) -> str:
        """The note's text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> LogHead:
        """Parse a note's text, ignoring extension lines. Raises VerificationFailed for any other text."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise _not_a_checkpoint("it needs an origin, a size and a root, one per line")
        origin, size, root = lines[:3]
        if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
            raise _not_a_checkpoint(f"its size is {size[:40]!r}")
        try:
            decoded = base64.b64decode(root, validate=True)
        except (binascii.Error, ValueError):
            decoded = b""
        if len(decoded) != HASH_BYTES:
            raise _not_a_checkpoint(f"its root is not {HASH_BYTES} bytes in base64")
        return cls(origin, int(size), decoded)


def verified(note: SignedNote, key: VerifierKey) -> LogHead:
    """The checkpoint in `note`. Raises VerificationFailed unless the log's `key` signed it."""
    if not note.signed_by([key]):
        raise VerificationFailed(
            f"the checkpoint is not signed by {key.name} (key {key.id.hex()})",
            "check that the key and the checkpoint belong to this log",
        )
    found = LogHead.parse(note.text)
    if found.origin != key.name:
        raise VerificationFailed(
            f"the checkpoint is from log {found.origin!r}, but the key is for {key.name!r}", "use the key of that log"
        )
    return found


def _not_a_checkpoint(why: str) -> VerificationFailed:
    return VerificationFailed(f"not a checkpoint of a log: {why}", "use the file exactly as you received it")
