"""The run's log as others can check it: a Merkle log of static files in the storage (c2sp.org/tlog-tiles).

In: an open run. Out: `log/checkpoint`, signed by the run's key, and `log/tile/`, from which anyone computes proofs;
proofs of inclusion to hand out. The ledger holds the log; this publishes it. So every process with the keys may
publish, at any moment, several at once, and be killed at any step:

1. what was published is read, and counts only if the run's key signed it;
2. the entries that follow it in the ledger are checked: signatures, and the chain from the newest one published;
3. bundles and tiles are written, never with other bytes than before;
4. the checkpoint is written last, and under the ledger's lock, so that it never goes back;
5. partial files that have become full ones are erased.

A publisher that is killed in between leaves files that the next one writes again with the same bytes. A ledger that
contradicts what was published is refused, so the log is continued or stops, and never forks.
"""

from __future__ import annotations

from functools import cache

from s3t_ray.errors import StoreError, VerificationFailed
from s3t_ray.ledger.keys import PUBLIC_FILE, Keys
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
"""In the log's folder: a folder of this name, with one for each stamped checkpoint, by its size; the files in that."""

FIRST_PUBLISHED = "log_published"
"""Event of the history, before the first checkpoint is written: from then on there is one."""


def verifier_key(run: Run) -> VerifierKey:
    """What others check this run's checkpoints with, and what a witness must be told.

    From the run's keys, or where they are not, as for an auditor, from their public half.
    """
    folder = run.location.keys_dir
    if Keys.exist(folder) or not (folder / PUBLIC_FILE).is_file():
        return log_key(run.ledger.run_id, run.keys.public_key)
    return log_key(run.ledger.run_id, raw_public_key((folder / PUBLIC_FILE).read_bytes()))


def published(run: Run) -> SignedNote | None:
    """The newest checkpoint in the storage, with its cosignatures; None: the log was never published.

    VerificationFailed: what lies there is not a checkpoint that the run's key signed.
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
    """VerificationFailed unless the run's key signed it; or a former one, when the log was no longer than it signed."""
    now = verifier_key(run)
    if note.signed_by([now]):
        verified(note, now)
        return
    for key, (_, last) in log_keys(run, pem_of(now.public)).spans.items():
        former = log_key(run.ledger.run_id, bytes.fromhex(key))
        if last is not None and note.signed_by([former]) and verified(note, former).size <= last:
            return
    verified(note, now)  # says what is wrong


def publish(run: Run) -> SignedNote | None:
    """Publish what the run's log has gained; the newest checkpoint. None: the run has no records yet.

    VerificationFailed: the ledger's log is not the one that was published, or is older. StoreError.
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
    """The proof (c2sp.org/tlog-proof, a text) that entry `sequence` of the log stands under the published checkpoint.

    It shows nothing of other entries but hashes. VerificationFailed: the log was not published so far, or its files
    do not prove it. `note`: an earlier checkpoint of the log to prove it under.
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
    """Whether this path of the storage may hold a file of the published log."""
    inside = path.removeprefix(f"{layout.LOG}/")
    stamped = inside.removeprefix(f"{TIMESTAMPS}/").split("/")
    if inside.startswith(f"{TIMESTAMPS}/") and len(stamped) == 2:
        return stamped[0].isascii() and stamped[0].isdecimal() and stamped[1] in (STAMPED, REPLY)
    return path == CHECKPOINT or (inside != path and LogFile.parse(inside) is not None)


def reader(run: Run) -> Read:
    """Reads a file of the published log by its path in it. StoreError: there is none."""
    return read_or_cut(lambda path: run.store.read_bytes(f"{layout.LOG}/{path}"))


def _published_or_none(run: Run) -> SignedNote | None:
    """What nobody with the key signed is as good as none: the ledger has the log, and the audit names the rest."""
    try:
        return published(run)
    except VerificationFailed:
        return None


def _growth(run: Run, old: LogHead, newest: int) -> Growth:
    """The log as the ledger has it, which begins with the one of `old`."""
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
        pass  # the files are damaged or gone, or it is the ledger: a look at the whole log tells
    leaves = _checked(run, ChainHead())
    if EntryTree(old.origin, leaves[: old.size]).head() != old:
        raise VerificationFailed(
            f"the ledger's log is not the one of the run's signed checkpoint of {old.size} entries: it was rewritten",
            "restore the ledger that the checkpoint was signed for; nothing is published until then",
        )
    tree = EntryTree(old.origin, leaves)
    return Growth(tree.head(), tuple(tree.files()))


def _checked(run: Run, after: ChainHead) -> list[bytes]:
    """The leaves that follow `after`. VerificationFailed: an entry is not genuine, or the chain breaks."""
    texts = [row.text for row in run.ledger.log_after(after.sequence)]
    return [leaf_of(entry.hash) for entry in verify_chain(texts, run.keys.public_key_pem, after=after)]


def _show(run: Run, head: LogHead) -> SignedNote:
    """Sign the checkpoint and put it in place, unless a longer one is there by now."""
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
