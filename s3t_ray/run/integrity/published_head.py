"""The length of the run's log when it was last published, from the checkpoint in the storage signed by the run's key.

In: a storage, a ledger, the folder of keys. Out: numbers of entries. Ignores checkpoints with other signatures, which
an audit reports.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.keys import PUBLIC_FILE
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.proof.log_leaf import log_key
from s3t_ray.proof.signed_entry import raw_public_key
from s3t_ray.store import layout
from s3t_ray.store.store import Store
from s3t_ray.tlog.log_head import LogHead, verified
from s3t_ray.tlog.signed_note import SignedNote

_KEY = re.compile("[0-9a-f]{64}")

CHECKPOINT = f"{layout.LOG}/checkpoint"


def published_beyond(store: Store, ledger: Ledger, keys_dir: Path) -> tuple[int, int] | None:
    """Numbers of entries of the published checkpoint and of the ledger's log, if the first is larger; else None.

    The run's key is the ledger's signing key, or the one whose public half is beside the keys, because a ledger from
    before a change of key has only the former key. StoreError.
    """
    if not store.exists(CHECKPOINT):
        return None
    try:
        note = SignedNote.parse(store.read_bytes(CHECKPOINT).decode(errors="replace"))
        size = LogHead.parse(note.text).size
    except VerificationFailed:
        return None
    length = ledger.log_length()  # read last: the log is always at least as long as its published part
    if size <= length:
        return None
    for key in _keys(ledger, keys_dir):
        try:
            verified(note, log_key(ledger.run_id, key))
        except VerificationFailed:
            continue
        return size, length
    return None


def _keys(ledger: Ledger, keys_dir: Path) -> list[bytes]:
    """Raw public keys that may have signed it."""
    found = []
    signs = ledger.signing_key()
    if signs is not None and _KEY.fullmatch(signs):  # as claimed by the log
        found.append(bytes.fromhex(signs))
    public = keys_dir / PUBLIC_FILE
    if public.is_file():
        with suppress(VerificationFailed):  # damaged: an audit reports it
            found.append(raw_public_key(public.read_bytes()))
    return found
