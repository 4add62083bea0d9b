"""A witness's folder: its key, its name, and its state, which must never be rolled back.

In: a folder. Out: a `Witness` that uses it. The folder is the witness: running two witnesses from copies of one folder,
or restoring an old copy, makes its cosignatures worthless.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from s3t_ray.errors import ConfigError
from s3t_ray.tlog.cosignature import Cosigner
from s3t_ray.tlog.signed_note import VerifierKey
from s3t_ray.tlog.witness import Witness

_KEY, _STATE = "witness.key", "witness.db"
_PREFIX = "PRIVATE+KEY"


def create(folder: Path, name: str) -> VerifierKey:
    """Create a witness called `name` in a new folder, and return its public key.

    If several processes try at once, one succeeds. A kill leaves either no witness or a complete one. Raises
    ConfigError if the folder already holds a witness or cannot be written.
    """
    try:
        cosigner = Cosigner(name, Ed25519PrivateKey.generate())
    except ValueError as error:
        raise ConfigError(str(error), "name it like a host and path, such as witness.example.com/w1") from error
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        _write_once(folder / _KEY, _text_of(cosigner))
    except FileExistsError as error:
        raise ConfigError(f"{folder} already holds a witness", "serve that one, or use a new folder") from error
    except OSError as error:
        raise ConfigError(f"cannot create a witness in {folder}: {error}", "use a writable folder") from error
    return cosigner.key


def open_witness(folder: Path, logs: Sequence[VerifierKey]) -> Witness:
    """The witness in `folder`, for the logs with these keys. Raises ConfigError if there is none."""
    try:
        cosigner = _cosigner_of((folder / _KEY).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no witness in {folder}: {error}", f"create one: s3t witness init {folder} --name NAME"
        ) from error
    return Witness(folder / _STATE, cosigner, logs)


def _text_of(cosigner: Cosigner) -> str:
    """The name and private key as text, in the format of golang.org/x/mod/sumdb/note."""
    key = cosigner.key
    private = base64.b64encode(bytes([key.kind]) + cosigner.private_bytes()).decode()
    return f"{_PREFIX}+{key.name}+{key.id.hex()}+{private}\n"


def _cosigner_of(text: str) -> Cosigner:
    """Parse a private key. Raises ValueError for any other text."""
    parts = text.strip().removeprefix(f"{_PREFIX}+").split("+", 2)
    if not text.startswith(_PREFIX) or len(parts) != 3:
        raise ValueError(f"{_KEY} is not a witness's key")
    material = base64.b64decode(parts[2], validate=True)
    cosigner = Cosigner(parts[0], Ed25519PrivateKey.from_private_bytes(material[1:]))
    if material[0] != cosigner.key.kind or parts[1] != cosigner.key.id.hex():
        raise ValueError(f"{_KEY} was changed: it is not the key of {parts[0]!r}")
    return cosigner


def _write_once(path: Path, text: str) -> None:
    """Create a file atomically and durably. Raises FileExistsError if it already exists."""
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)  # readable only by its owner
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    finally:
        os.unlink(name)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
