"""Compares the published log with the ledger's: every file is computed again from the entries.

In: an open run, its log's rows, and what is known of the log from elsewhere: kept checkpoints, witnesses. Out: one line
per problem. Reads only. A log that is behind the ledger is not a problem: a scheduler publishes the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from s3t_ray.audit.log_times import Sighting, time_problems
from s3t_ray.errors import ConfigError, S3TError, VerificationFailed
from s3t_ray.ledger.values import StoredEntry
from s3t_ray.proof.log_leaf import leaf_of, origin_of
from s3t_ray.run.integrity.published_head import CHECKPOINT
from s3t_ray.run.log.log_timestamps import stamped_otherwise
from s3t_ray.run.log.log_witnesses import WitnessAddress, newest_seen, witnesses_of
from s3t_ray.run.log.published_log import FIRST_PUBLISHED, REPLY, published, require_genuine
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from s3t_ray.tlog.cosignature import cosigned_by
from s3t_ray.tlog.entry_tree import EntryTree
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.signed_note import SignedNote
from s3t_ray.tlog.tiles import LogFile
from s3t_ray.tlog.timestamp import claimed_time


def published_otherwise(
    run: Run, stored: Sequence[StoredEntry], checkpoints: Sequence[str] = (), witnesses: Sequence[WitnessAddress] = ()
) -> Iterator[str]:
    """Differences between the ledger and the published log, checkpoints kept elsewhere, or witnesses."""
    leaves = [leaf_of(row.hash) for row in stored]
    tree = EntryTree(origin_of(run.ledger.run_id), leaves)
    try:
        note = published(run)
    except VerificationFailed as error:
        yield f"{CHECKPOINT}: {error.problem}"
        note = None
    else:
        if note is None and run.ledger.events(kinds=[FIRST_PUBLISHED]):
            yield f"{CHECKPOINT} is gone: the log was published before (`s3t head RUN --publish` publishes it again)"
    if note is not None:
        yield from _head(tree, LogHead.parse(note.text), f"the signed checkpoint in {CHECKPOINT}")
        yield from _cosignatures(run, note)
    yield from _files(run, tree, leaves, None if note is None else LogHead.parse(note.text))
    seen = [] if note is None else [*_cosigned(run, note)]
    try:
        for path, found in stamped_otherwise(run):
            if isinstance(found, str):
                yield f"{path} {found}"
                continue
            yield from _head(tree, found, f"the checkpoint in {path}")
            seen += _stamped(run, path, found)
    except ConfigError as error:  # the package that reads timestamps is not installed
        yield f"the log's timestamps could not be checked: {error.problem}; {error.fix}"
    yield from time_problems(stored, seen)
    for text in checkpoints:
        try:
            note = SignedNote.parse(text)
            require_genuine(run, note)
            kept = LogHead.parse(note.text)
        except VerificationFailed as error:
            yield f"a checkpoint from earlier: {error.problem}"
        else:
            yield from _head(tree, kept, "an earlier checkpoint")
    for witness in witnesses:
        yield from _witness(run, tree, witness)


def _head(tree: EntryTree, head: LogHead, what: str) -> Iterator[str]:
    """Check that the ledger's log continues the log of this genuine head."""
    if head.size > tree.size:
        yield f"{what} has {head.size} entries, but the ledger's log has {tree.size}: the log was reset"
    elif tree.head(head.size) != head:
        yield f"{what} has {head.size} entries that differ from the ledger's log: the log was rewritten or forked"


def _cosignatures(run: Run, note: SignedNote) -> Iterator[str]:
    """Check the cosignatures of witnesses in the config.

    Signatures of other keys have no meaning: readers of a signed note ignore them (c2sp.org/signed-note).
    """
    try:
        cosigned_by(note, [witness.key for witness in witnesses_of(run)])
    except VerificationFailed as error:
        yield f"{CHECKPOINT}: {error.problem}"


def _cosigned(run: Run, note: SignedNote) -> Iterator[Sighting]:
    """Times at which witnesses in the config cosigned this checkpoint."""
    with suppress(VerificationFailed):  # reported above
        for key, time in cosigned_by(note, [witness.key for witness in witnesses_of(run)]).items():
            size = LogHead.parse(note.text).size
            yield Sighting(f"witness {key.name}", size, datetime.fromtimestamp(time, UTC))


def _stamped(run: Run, path: str, head: LogHead) -> Iterator[Sighting]:
    """Time of the timestamp beside this checkpoint."""
    reply = f"{path.rpartition('/')[0]}/{REPLY}"
    at = claimed_time(run.store.read_bytes(reply)) if run.store.exists(reply) else None
    if at is not None:
        yield Sighting(f"the timestamp authority of {reply}", head.size, at)


def _files(run: Run, tree: EntryTree, leaves: Sequence[bytes], head: LogHead | None) -> Iterator[str]:
    """Check that each file follows from the ledger's log, and that no file needed by the checkpoint is missing."""
    there = set(run.store.files(layout.LOG)) - {CHECKPOINT}
    for path in sorted(there):
        place = LogFile.parse(path.removeprefix(f"{layout.LOG}/"))
        if place is None:
            continue  # reported as a file of no known kind
        if place.holds(leaves, tree.subtree) != run.store.read_bytes(path):
            yield f"{path} does not match the ledger's log"
    if head is not None and head.size <= tree.size:
        for name, _ in EntryTree(tree.origin, leaves[: head.size]).files():
            place = LogFile.parse(name)
            if f"{layout.LOG}/{name}" not in there and place is not None and not _full_is(there, place):
                yield f"{layout.LOG}/{name} is gone, but the log's proofs need it"


def _full_is(there: set[str], place: LogFile) -> bool:
    """Whether the full file exists, so that the partial one may be erased."""
    return f"{layout.LOG}/{LogFile(place.level, place.index, 256).path}" in there


def _witness(run: Run, tree: EntryTree, witness: WitnessAddress) -> Iterator[str]:
    name = witness.key.name
    try:
        note = newest_seen(witness, tree.origin)
        head = None if note is None else LogHead.parse(note.text)
        if note is not None:
            require_genuine(run, note)
    except S3TError as error:
        yield f"witness {name}: {error.problem}"
        return
    if head is None:
        yield f"witness {name} has seen no checkpoint of this log"
    else:
        yield from _head(tree, head, f"what witness {name} has cosigned")
