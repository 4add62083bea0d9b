"""Cosignatures (c2sp.org/tlog-cosignature): a witness confirms that a checkpoint extends all checkpoints it has seen.

In: a checkpoint and a witness's key. Out: signature lines for the note, and the witnesses that signed. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from s3t_ray.errors import VerificationFailed
from s3t_ray.tlog.signed_note import COSIGNATURE, NoteSignature, SignedNote, VerifierKey, check_ed25519


class Cosigner:
    """A witness's signing key with its name."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key = VerifierKey(name, COSIGNATURE, private.public_key().public_bytes_raw())

    def private_bytes(self) -> bytes:
        """The private key (32 bytes), only for the witness's own folder."""
        return self._private.private_bytes_raw()

    def cosign(self, text: str, now: int) -> NoteSignature:
        """The cosignature of a checkpoint's text at `now` (seconds since 1970)."""
        value = struct.pack(">Q", now) + self._private.sign(_message(text, now))
        return NoteSignature(self.key.name, self.key.id, value)


def cosigned_by(note: SignedNote, witnesses: Iterable[VerifierKey]) -> dict[VerifierKey, int]:
    """The witnesses among these that cosigned the checkpoint, each with its time (seconds since 1970).

    Raises VerificationFailed if a cosignature in the name of one of them is invalid.
    """
    known: Mapping[tuple[str, bytes], VerifierKey] = {
        (key.name, key.id): key for key in witnesses if key.kind == COSIGNATURE
    }
    found: dict[VerifierKey, int] = {}
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        if len(signature.value) != 72:
            raise VerificationFailed(
                f"the cosignature of {key.name} has {len(signature.value)} bytes, not 72", "ask for the original"
            )
        (time,) = struct.unpack(">Q", signature.value[:8])
        check_ed25519(key, signature.value[8:], _message(note.text, time))
        found[key] = max(time, found.get(key, 0))
    return found


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()
