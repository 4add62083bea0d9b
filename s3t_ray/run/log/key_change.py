"""Replaces a run's signing key: creates the new key, adds the change to the log, and swaps the files.

In: a run, opened for writing. Out: the entry (`KeyEntry`), after which the new key signs. The key is in a new file, or
already on a PKCS#11 token. It can be killed at any step and called again: the log alone determines the run's key, and
the folder always has that key. The ledger refuses processes that still have the old one.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Literal

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.keys import KEY_BYTES, PUBLIC_FILE, replace_file, write_once
from s3t_ray.ledger.signers.pkcs11_signer import Pkcs11Signer
from s3t_ray.ledger.signers.pkcs11_uri import Pkcs11Uri
from s3t_ray.ledger.signers.signing_key import NEXT_FILE, load_signer, settle_next, token_file
from s3t_ray.proof.key_entry import KeyEntry
from s3t_ray.proof.signed_entry import Signer
from s3t_ray.run.run import Run


def change_key(
    run: Run, reason: Literal["rotation", "hand-over"], to: str | None = None, token: Pkcs11Uri | None = None
) -> KeyEntry:
    """Make a new key sign from now on: a created one, or the one on this token. Removes the old key from the folder.

    LedgerError: the run has no records yet, the folder is not writable, the token does not sign, its key already signs,
    or a change to another key is unfinished.
    """
    folder = run.location.keys_dir
    keys = run.keys
    on_token = None if token is None else Pkcs11Signer.on_token(token)
    if on_token is not None and on_token.public_key == keys.public_key:
        raise LedgerError("the key on that token signs for this run already", "name another key pair")
    try:
        keys.settle(folder)
        if not (folder / NEXT_FILE).exists():
            made = secrets.token_bytes(KEY_BYTES) if on_token is None else token_file(on_token)
            write_once(folder / NEXT_FILE, made, 0o600)
        following = load_signer(folder / NEXT_FILE)
        assert following is not None
        _require_asked_for(following, on_token, folder)
        entry = run.ledger.change_key(following, reason, to)
        keys.follow(following)
        replace_file(folder / PUBLIC_FILE, keys.public_key_pem, 0o600)
        settle_next(folder)  # last: while there is a next key, opening the run finishes an interrupted change
    except OSError as error:
        raise LedgerError(
            f"the signing key cannot be changed in {folder}: {os.strerror(error.errno or 0)}",
            "make keys.dir writable for this user, on a disk with free space; then run the command again",
        ) from error
    run.remember()
    return entry


def _require_asked_for(following: Signer, on_token: Pkcs11Signer | None, folder: Path) -> None:
    """LedgerError if an interrupted or concurrent change of key is to another key than this one."""
    is_on_token = isinstance(following, Pkcs11Signer)
    if is_on_token == (on_token is not None) and (on_token is None or following.public_key == on_token.public_key):
        return
    raise LedgerError(
        f"a change to another key {'on a token' if is_on_token else 'in a file'} was begun and not ended: nothing was "
        "changed",
        f"give the same command as then; or, if no `s3t rotate-key` is running, remove {folder / NEXT_FILE} first",
    )
