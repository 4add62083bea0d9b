"""Repairs the log of a restored run: the key that signs from now on, and files published from the lost history.

In: a run that `restore.py` is restoring. Each step can be interrupted and repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.values import ExportedFolder
from s3t_ray.proof.export_entry import still_there
from s3t_ray.proof.key_entry import KEY_ENTRIES, change_in
from s3t_ray.proof.signed_entry import ChainHead, SignedEntry
from s3t_ray.run.integrity.log_copy import LogCopy
from s3t_ray.run.integrity.published_head import CHECKPOINT
from s3t_ray.run.log.key_change import change_key
from s3t_ray.run.log.published_log import TIMESTAMPS
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.signed_note import SignedNote


def follow_key(run: Run, keys: Keys, lost: Sequence[SignedEntry], note: Callable[[str], None]) -> None:
    """If the lost history changed the signing key, make sure that the earlier key does not sign from now on.

    If the folder has the later key, the log switches to it, using the lost change. If it has the earlier key, from a
    backup of the keys, the key is changed again, because it was replaced for a reason. LedgerError, VerificationFailed.
    """
    changes = [entry for entry in lost if isinstance(entry, KEY_ENTRIES)]
    if not changes:
        return
    if run.ledger.signing_key() != keys.public_key.hex():
        head = ChainHead(sequence=lost[-1].facts.sequence, hash=lost[-1].hash)
        made = run.ledger.carry_key(keys, [entry.to_json() for entry in changes], head)
        note(f"entry {made.facts.sequence} of the log: the key that it was changed to since the backup signs it again")
    elif keys.public_key.hex() == change_in(changes[0]).before:
        made_anew = change_key(run, "rotation")
        note(
            f"entry {made_anew.facts.sequence} of the log: {made_anew.facts.next_key} signs from here on, since the "
            "key from the backup had been changed; give auditors and witnesses the new one"
        )


def renote_exports(run: Run, copied: Sequence[SignedEntry]) -> None:
    """Record the exports that are missing from the backup again: they may contain records that are now deleted again.

    `copied`: all entries of the copy of the log.
    """
    known = set(run.ledger.exports.all())
    for told in still_there(copied).values():
        export = ExportedFolder(told.folder, told.stages, told.files)
        if export not in known:
            run.ledger.exports.note(told.shard, export)


def withdraw(run: Run, copy: LogCopy, kept: int) -> None:
    """Remove the published files of the lost history from the storage, which may only contain the continued log.

    `kept`: number of common entries. The signed checkpoint is kept beside the lost entries.
    """
    if not run.store.exists(CHECKPOINT):
        return
    text = run.store.read_bytes(CHECKPOINT).decode(errors="replace")
    try:
        if LogHead.parse(SignedNote.parse(text).text).size <= kept:
            return  # from the backup: the log continues it
    except VerificationFailed:
        pass  # publishing writes the log again
    copy.keep_checkpoint(text)
    for path in run.store.files(layout.LOG):
        if path != CHECKPOINT and not _is_stamp_of(path, kept):
            run.store.delete(path)
    run.store.delete(CHECKPOINT)  # last: until then, an interrupted restore gets here again


def _is_stamp_of(path: str, kept: int) -> bool:
    """Whether this path belongs to the timestamp of a checkpoint that the log still continues."""
    folder, _, rest = path.removeprefix(f"{layout.LOG}/").partition("/")
    size = rest.partition("/")[0]
    return folder == TIMESTAMPS and size.isdecimal() and int(size) <= kept
