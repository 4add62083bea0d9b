"""The run's signing key, apart from the secret that hides ids.

In: the folder of keys. Out: a `Signer`. The log determines the run's key (`KeyEntry`), so the folder can briefly have
two during a change: `signing.key` and `signing.next`. Such a file contains the 32 bytes of the key, or the URI and
public half of a key on a PKCS#11 token. To support another device or service, add a class with `public_key` and `sign`.
Runs of older versions have no file: their key is derived from the master secret until the first change.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.signers.pkcs11_signer import Pkcs11Signer
from s3t_ray.ledger.signers.pkcs11_uri import SCHEME, Pkcs11Uri

SIGNING_FILE = "signing.key"
NEXT_FILE = "signing.next"
_SEED_BYTES = 32
_ON_TOKEN = re.compile(rb"(pkcs11:[!-~]+)\n([0-9a-f]{64})\n")


class FileSigner:
    """An Ed25519 key from a file."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        """Raw public key, 32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self._private.sign(message)


def load_signer(path: Path) -> FileSigner | Pkcs11Signer | None:
    """The signer in this file; None: there is no file. LedgerError: it is damaged, or readable by others."""
    try:
        mode, held = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerError(
            f"the signing key {path} cannot be read: {error.strerror}", "make it readable by this user only"
        ) from error
    if mode & 0o077:
        raise LedgerError(
            f"the signing key {path} has mode {mode:04o}: others than its owner can use it",
            f"chmod 600 {path}; if others may have read it, change it: s3t rotate-key RUN",
        )
    if held.startswith(SCHEME.encode()):
        return _on_token(path, held)
    if len(held) != _SEED_BYTES:
        raise LedgerError(
            f"the signing key {path} has {len(held)} bytes, not {_SEED_BYTES}", "restore it from its backup"
        )
    return FileSigner(held)


def token_file(signer: Pkcs11Signer) -> bytes:
    """File content for a key on a token."""
    return f"{signer.uri.text}\n{signer.public_key.hex()}\n".encode()


def _on_token(path: Path, held: bytes) -> Pkcs11Signer:
    match = _ON_TOKEN.fullmatch(held)
    if match is None:
        raise LedgerError(
            f"the signing key {path} says that it is on a PKCS#11 token, and not which public key it has",
            "restore it from its backup",
        )
    return Pkcs11Signer(Pkcs11Uri.parse(match[1].decode()), bytes.fromhex(match[2].decode()))


def settle_next(folder: Path) -> None:
    """Replace the last key with the next one, which is now the run's. The last one is erased."""
    with suppress(FileNotFoundError):  # another process was first
        os.replace(folder / NEXT_FILE, folder / SIGNING_FILE)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
