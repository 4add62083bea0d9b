"""An auditor's own signing key: a PEM file, separate from any run."""

from __future__ import annotations

import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from s3t_ray.errors import ConfigError

_MAKE = "make one: openssl genpkey -algorithm ed25519 -out auditor.key && chmod 600 auditor.key"


class AuditorKey:
    """Signs an auditor's statements."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @property
    def public_key(self) -> bytes:
        """Raw, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self._private.sign(message)

    @classmethod
    def load(cls, path: Path) -> AuditorKey:
        """The key in a PEM file. ConfigError: the file has none, or other users can read it."""
        try:
            mode, data = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
        except OSError as error:
            raise ConfigError(f"the auditor's key {path} cannot be read: {error.strerror}", _MAKE) from error
        if mode & 0o077:
            raise ConfigError(
                f"the auditor's key {path} has mode {mode:04o}: other users can read it", f"chmod 600 {path}"
            )
        try:
            private = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{path} is not a PEM private key without a password", _MAKE) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError(f"the key in {path} is not an Ed25519 key", _MAKE)
        return cls(private)
