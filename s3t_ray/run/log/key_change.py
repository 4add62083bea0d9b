"""A new signing key for a run: made, entered in the run's log, and put in place of the old one.

In: a run, opened for writing. Out: the entry (`KeyEntry`), after which the new key signs. It can be killed at any step
and called again: the log alone says which key is the run's, so the folder always holds that key. The ledger refuses
processes that still have the old one.
"""

from __future__ import annotations

import os
import secrets
from typing import Literal

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.keys import KEY_BYTES, PUBLIC_FILE, replace_file, write_once
from s3t_ray.ledger.signing_key import NEXT_FILE, FileSigner, settle_next
from s3t_ray.proof.key_entry import KeyEntry
from s3t_ray.run.run import Run


def change_key(run: Run, reason: Literal["rotation", "hand-over"], to: str | None = None) -> KeyEntry:
    """Have a new key sign from here on. The last one is erased from the folder of keys.

    LedgerError: the run has no records yet, or the folder cannot be written to.
    """
    folder = run.location.keys_dir
    keys = run.keys
    try:
        keys.settle(folder)
        if not (folder / NEXT_FILE).exists():
            write_once(folder / NEXT_FILE, secrets.token_bytes(KEY_BYTES), 0o600)
        following = FileSigner.load(folder / NEXT_FILE)
        assert following is not None
        entry = run.ledger.change_key(following, reason, to)
        keys.follow(following)
        replace_file(folder / PUBLIC_FILE, keys.public_key_pem, 0o600)
        settle_next(folder)  # last: while there is a next key, whoever opens the run ends what was cut off
    except OSError as error:
        raise LedgerError(
            f"the signing key cannot be changed in {folder}: {os.strerror(error.errno or 0)}",
            "make keys.dir writable for this user, on a disk with free space; then run the command again",
        ) from error
    run.remember()
    return entry
