"""Portable proofs of inclusion (c2sp.org/tlog-proof): one entry's path to a signed checkpoint, as text.

In: a path and a checkpoint. Out: a text that anyone with the log's key, and those of trusted witnesses, can check
offline. Pure. It reveals only hashes of other entries.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from s3t_ray.errors import VerificationFailed
from s3t_ray.tlog.cosignature import cosigned_by
from s3t_ray.tlog.log_head import LogHead, verified
from s3t_ray.tlog.merkle import HASH_BYTES, leaf_hash, root_of_inclusion
from s3t_ray.tlog.signed_note import SignedNote, VerifierKey

HEADER = "c2sp.org/tlog-proof@v1"
MOST_HASHES = 63
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True)
class LogProof:
    """The position of an entry in a log, with its proof."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: SignedNote

    def __str__(self) -> str:
        hashes = "".join(base64.b64encode(each).decode() + "\n" for each in self.path)
        return f"{HEADER}\nindex {self.index}\n{hashes}\n{self.checkpoint}"

    @classmethod
    def parse(cls, document: str) -> LogProof:
        """Parse a proof, ignoring unsigned extra data. Raises VerificationFailed for any other text."""
        head, _, note = document.partition("\n\n")
        lines = head.split("\n")
        if lines[0] != HEADER:
            raise _malformed(f"it does not begin with {HEADER}")
        rest = lines[2:] if len(lines) > 1 and lines[1].startswith("extra ") else lines[1:]
        index = _INDEX.fullmatch(rest[0]) if rest else None
        if index is None or len(rest) - 1 > MOST_HASHES:
            raise _malformed("it names no index, or has too many lines")
        return cls(int(index[1]), decoded_hashes(rest[1:]), SignedNote.parse(note))

    def check(
        self, entry: bytes, log: VerifierKey, witnesses: Sequence[VerifierKey] = (), quorum: int = 0
    ) -> tuple[LogHead, dict[VerifierKey, int]]:
        """The checkpoint that contains `entry` in the log of this key, and the witnesses' times of cosigning.

        Raises VerificationFailed if any check fails, or if fewer than `quorum` of the witnesses cosigned.
        """
        head = verified(self.checkpoint, log)
        if root_of_inclusion(leaf_hash(entry), self.index, head.size, self.path) != head.root:
            raise VerificationFailed(
                f"the entry is not at place {self.index} of log {head.origin} with {head.size} entries",
                "check that the proof belongs to this document, unchanged",
            )
        seen = cosigned_by(self.checkpoint, witnesses)
        if len(seen) < quorum:
            raise VerificationFailed(
                f"{len(seen)} of the witnesses cosigned the checkpoint, but {quorum} are required",
                "ask for a proof with the witnesses' cosignatures",
            )
        return head, seen


def decoded_hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    """Decode hashes in base64, one per line. Raises VerificationFailed."""
    hashes = []
    for line in lines:
        try:
            value = base64.b64decode(line, validate=True)
        except (binascii.Error, ValueError):
            value = b""
        if len(value) != HASH_BYTES:
            raise _malformed(f"{line[:60]!r} is not a hash")
        hashes.append(value)
    return tuple(hashes)


def _malformed(why: str) -> VerificationFailed:
    return VerificationFailed(f"not a proof of inclusion: {why}", "use the file exactly as you received it")
