"""A witness's folder: its key, its name, and the state that must never go back.

In: a folder. Out: a `Witness` that lives in it. The folder is the witness: whoever runs two from copies of one folder,
or restores an old copy, takes from its word what it is worth.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from s3t_ray.errors import ConfigError
from s3t_ray.tlog.cosignature import Cosigner
from s3t_ray.tlog.signed_note import VerifierKey
from s3t_ray.tlog.witness import Witness

_NAME, _KEY, _STATE = "name", "witness.key", "witness.db"


def create(folder: Path, name: str) -> VerifierKey:
    """Make a witness called `name` in a new folder; its public key. Raises ConfigError when something is there."""
    try:
        cosigner = Cosigner(name, Ed25519PrivateKey.generate())
    except ValueError as error:
        raise ConfigError(str(error), "name it like a host and path, such as witness.example.com/w1") from error
    private = cosigner.private_bytes()
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        if (folder / _KEY).exists():  # or its name would be lost
            raise FileExistsError
        # The key last: a folder without one is no witness, and is made again.
        (folder / _NAME).write_text(name + "\n")
        descriptor = os.open(folder / _KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise ConfigError(f"{folder} holds a witness already", "serve that one, or name a new folder") from error
    except OSError as error:
        raise ConfigError(
            f"no witness can be made in {folder}: {error}", "name a folder that can be written"
        ) from error
    return cosigner.key


def open_witness(folder: Path, logs: Sequence[VerifierKey]) -> Witness:
    """The witness in `folder`, for the logs of these keys. Raises ConfigError when there is none."""
    try:
        name = (folder / _NAME).read_text().strip()
        cosigner = Cosigner(name, Ed25519PrivateKey.from_private_bytes((folder / _KEY).read_bytes()))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no witness in {folder}: {error}", f"make one: s3t witness init {folder} --name NAME"
        ) from error
    return Witness(folder / _STATE, cosigner, logs)
