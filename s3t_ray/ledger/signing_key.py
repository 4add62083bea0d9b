"""The run's signing key, separate from the secret that hides ids.

In: the key folder. Out: a `Signer`. The log says which key is the run's (`KeyEntry`), so the folder may hold two for a
moment during a change: `signing.key`, and `signing.next`. A key in a device or a service would be another class with
`public_key` and `sign`. Runs of older versions have no file: their key is derived from the master secret, until the
first change.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from s3t_ray.errors import LedgerError

SIGNING_FILE = "signing.key"
NEXT_FILE = "signing.next"
_SEED_BYTES = 32


class FileSigner:
    """An Ed25519 key that is at hand."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        """Raw, 32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self._private.sign(message)

    @classmethod
    def load(cls, path: Path) -> FileSigner | None:
        """The key in this file; None: there is none. LedgerError: damaged, or readable by others."""
        try:
            mode, seed = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(
                f"the signing key {path} cannot be read: {error.strerror}", "make it readable by this user only"
            ) from error
        if mode & 0o077:
            raise LedgerError(
                f"the signing key {path} has mode {mode:04o}: other users can read it",
                f"chmod 600 {path}; if other users may have read it, replace it: s3t rotate-key RUN",
            )
        if len(seed) != _SEED_BYTES:
            raise LedgerError(
                f"the signing key {path} has {len(seed)} bytes, not {_SEED_BYTES}", "restore it from its backup"
            )
        return cls(seed)


def settle_next(folder: Path) -> None:
    """The next key has become the run's: it takes the place of the last one, which is gone after this."""
    with suppress(FileNotFoundError):  # another process was first
        os.replace(folder / NEXT_FILE, folder / SIGNING_FILE)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
