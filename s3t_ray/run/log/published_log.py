"""Publishes the run's log for third parties: a Merkle log of static files in the storage (c2sp.org/tlog-tiles).

In: an open run. Out: `log/checkpoint`, signed by the run's key, and `log/tile/`, from which anyone computes proofs;
proofs of inclusion to hand out. The ledger has the log; this module publishes it. Every process with the keys may
publish at any time, several may do so concurrently, and each can be killed at any step:

1. read the published checkpoint, which counts only if the run's key signed it;
2. check the entries that follow it in the ledger: signatures, and the chain from the newest published entry;
3. write bundles and tiles, whose bytes never change;
4. write the checkpoint last, under the ledger's lock, so that it never goes back;
5. erase partial files that have become full.

If a publisher is killed, the next one rewrites its files with the same bytes. A ledger that contradicts the published
log is refused, so the log continues or stops, and never forks.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from s3t_ray.errors import StoreError, VerificationFailed
from s3t_ray.ledger.keys import PUBLIC_FILE, Keys
from s3t_ray.ledger.rows.failure_rows import FailedLog
from s3t_ray.ledger.values import Fenced
from s3t_ray.proof.log_leaf import leaf_of, log_key, origin_of
from s3t_ray.proof.run_log import verify_chain
from s3t_ray.proof.signed_entry import FIRST, ChainHead, pem_of, raw_public_key
from s3t_ray.run.integrity.published_head import CHECKPOINT
from s3t_ray.run.log.issued_certificates import log_keys
from s3t_ray.run.reports import HeadReport
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from s3t_ray.tlog.entry_tree import EntryTree
from s3t_ray.tlog.log_growth import Growth, grown, stands_at
from s3t_ray.tlog.log_head import LogHead, verified
from s3t_ray.tlog.log_proof import LogProof
from s3t_ray.tlog.merkle import EMPTY_ROOT, inclusion_path
from s3t_ray.tlog.signed_note import NoteSigner, SignedNote, VerifierKey
from s3t_ray.tlog.tiles import LogFile, Read, TiledLog, outgrown, read_or_cut

TIMESTAMPS, STAMPED, REPLY = "timestamps", "checkpoint", "reply.tsr"
"""Folder of timestamps in the log's folder; its subfolders, one per stamped checkpoint size; the files in these."""

FIRST_PUBLISHED = "log_published"
"""Event of the history before the first checkpoint is written, which must exist from then on."""


def verifier_key(run: Run) -> VerifierKey:
    """The key that verifies this run's checkpoints, which a witness needs.

    Comes from the run's keys or, if they are missing as for an auditor, from their public half.
    """
    folder = run.location.keys_dir
    if Keys.exist(folder) or not (folder / PUBLIC_FILE).is_file():
        return log_key(run.ledger.run_id, run.keys.public_key)
    return log_key(run.ledger.run_id, raw_public_key((folder / PUBLIC_FILE).read_bytes()))


def published(run: Run) -> SignedNote | None:
    """The newest checkpoint in the storage, with its cosignatures; None: the log was never published.

    VerificationFailed: the run's key did not sign the file there.
    """
    if not run.store.exists(CHECKPOINT):
        return None
    try:
        note = SignedNote.parse(run.store.read_bytes(CHECKPOINT).decode())
    except UnicodeDecodeError as error:
        raise VerificationFailed(f"{CHECKPOINT} is not a text", "restore it, or publish the log again") from error
    require_genuine(run, note)
    return note


def require_genuine(run: Run, note: SignedNote) -> None:
    """VerificationFailed unless the run's key signed it, or a former key for a log within that key's entries."""
    now = verifier_key(run)
    if note.signed_by([now]):
        verified(note, now)
        return
    for key, (_, last) in log_keys(run, pem_of(now.public)).spans.items():
        former = log_key(run.ledger.run_id, bytes.fromhex(key))
        if last is not None and note.signed_by([former]) and verified(note, former).size <= last:
            return
    verified(note, now)  # says what is wrong


def forget_failed_publishing(run: Run) -> None:
    """Clear a scheduler's failure to publish, after the log was published and cosigned without one."""
    if any(row.subject == FailedLog() for row in run.ledger.failures()):
        with suppress(Fenced):  # a scheduler has just started, and publishes by itself
            run.ledger.forget_failure(run.ledger.lease().epoch, FailedLog())


def publish(run: Run) -> SignedNote | None:
    """Publish the new entries of the run's log. Returns the newest checkpoint; None: the run has no records yet.

    VerificationFailed: the ledger's log differs from the published one, or is older. StoreError.
    """
    newest = run.ledger.log_head().sequence
    if newest == 0:
        return None
    before = _published_or_none(run)
    old = LogHead(origin_of(run.ledger.run_id), 0, EMPTY_ROOT) if before is None else LogHead.parse(before.text)
    if before is not None and old.size == newest:
        return before
    growth = _growth(run, old, newest)
    if before is None and not run.ledger.events(kinds=[FIRST_PUBLISHED]):
        run.ledger.add_event(FIRST_PUBLISHED, None, {})
    for path, data in growth.files:
        run.store.write_bytes(f"{layout.LOG}/{path}", data)
    note = _show(run, growth.head)
    for path in outgrown(old.size, growth.head.size):
        run.store.delete(f"{layout.LOG}/{path}")
    return note


def proof_of(run: Run, sequence: int, note: SignedNote | None = None) -> str:
    """The proof (text of a c2sp.org/tlog-proof) that entry `sequence` is included in the published checkpoint.

    It contains only hashes of other entries. VerificationFailed: the entry is not published yet, or the files do not
    prove it. `note`: an earlier checkpoint of the log to use instead.
    """
    note = note or published(run)
    head = None if note is None else LogHead.parse(note.text)
    if note is None or head is None or head.size < sequence:
        raise VerificationFailed(
            f"entry {sequence} is not in the published log yet, which has {head.size if head else 0} entries",
            "run s3t head RUN --publish (a scheduler does this by itself)",
        )
    entry_hash, read = run.ledger.log_hash(sequence), reader(run)
    if entry_hash is None or not stands_at(head, sequence - 1, leaf_of(entry_hash), read):
        raise VerificationFailed(
            f"entry {sequence} of the ledger's log is not in the published log", "run `s3t audit` to investigate"
        )
    path = inclusion_path(sequence - 1, head.size, TiledLog(head.size, read).subtree)
    return str(LogProof(sequence - 1, tuple(path), note))


def head_report(run: Run, note: SignedNote | None) -> HeadReport:
    """The published checkpoint `note` for people and programs."""
    size = 0 if note is None else LogHead.parse(note.text).size
    key = verifier_key(run)
    return HeadReport(origin=key.name, size=size, checkpoint="" if note is None else str(note), key=str(key))


def is_of_log(path: str) -> bool:
    """Whether this path in the storage can be a file of the published log."""
    inside = path.removeprefix(f"{layout.LOG}/")
    stamped = inside.removeprefix(f"{TIMESTAMPS}/").split("/")
    if inside.startswith(f"{TIMESTAMPS}/") and len(stamped) == 2:
        return stamped[0].isascii() and stamped[0].isdecimal() and stamped[1] in (STAMPED, REPLY)
    return path == CHECKPOINT or (inside != path and LogFile.parse(inside) is not None)


def reader(run: Run) -> Read:
    """A function that reads a file of the published log by its path in the log. StoreError: there is none."""
    return read_or_cut(lambda path: run.store.read_bytes(f"{layout.LOG}/{path}"))


def _published_or_none(run: Run) -> SignedNote | None:
    """Like `published`, but None for an invalid signature: the ledger has the log, and an audit reports the file."""
    try:
        return published(run)
    except VerificationFailed:
        return None


def _growth(run: Run, old: LogHead, newest: int) -> Growth:
    """The ledger's log, as a continuation of `old`."""
    if newest < old.size:
        raise VerificationFailed(
            f"the run's log has {newest} entries in the ledger and {old.size} in its signed checkpoint: the ledger is "
            "older than what was published",
            "restore the newest ledger; nothing is published until then",
        )
    read = cache(reader(run))
    last = run.ledger.log_hash(old.size) or FIRST
    try:
        if old.size == 0 or stands_at(old, old.size - 1, leaf_of(last), read):
            return grown(old, _checked(run, ChainHead(sequence=old.size, hash=last)), read)
    except (StoreError, VerificationFailed):
        pass  # files or ledger are damaged: the full log shows which
    leaves = _checked(run, ChainHead())
    if EntryTree(old.origin, leaves[: old.size]).head() != old:
        raise VerificationFailed(
            f"the ledger's log is not the one of the run's signed checkpoint of {old.size} entries: it was rewritten",
            "restore the ledger that the checkpoint was signed for; nothing is published until then",
        )
    tree = EntryTree(old.origin, leaves)
    return Growth(tree.head(), tuple(tree.files()))


def _checked(run: Run, after: ChainHead) -> list[bytes]:
    """The leaves after `after`. VerificationFailed: an entry is not genuine, or the chain breaks."""
    texts = [row.text for row in run.ledger.log_after(after.sequence)]
    return [leaf_of(entry.hash) for entry in verify_chain(texts, run.keys.public_key_pem, after=after)]


def _show(run: Run, head: LogHead) -> SignedNote:
    """Sign and publish the checkpoint, unless a longer one exists by now."""
    signer = NoteSigner(origin_of(run.ledger.run_id), run.keys.public_key, run.keys.sign)
    note = signer.sign(head.text())
    with run.ledger.alone():
        now = _published_or_none(run)
        there = None if now is None else LogHead.parse(now.text)
        if now is not None and there is not None and there.size >= head.size:
            if there.size == head.size and there != head:
                raise VerificationFailed(
                    f"another log of {head.size} entries was published meanwhile, signed by the run's key",
                    "two ledgers are signing for this run: stop all processes of one of them, and audit the run",
                )
            return now
        run.store.write_bytes(CHECKPOINT, str(note).encode())
    return note
