"""A run's log as a Merkle log (`tlog`): what its leaves are, and under which name and key its checkpoints stand.

Pure. A leaf is the hash of a signed entry, never the entry: receipts and certificates differ in their signatures, so
nobody who lacks an entry can guess it from its leaf, and a log that anyone may read shows how many there are, and
nothing else. Entry n of the run's log is leaf n - 1.
"""

from __future__ import annotations

import re

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.signed_entry import LogKeys, SignedEntry
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.log_proof import LogProof
from s3t_ray.tlog.signed_note import ED25519, VerifierKey

LEAF = "s3t-ray/leaf/1"
_ORIGIN = re.compile(r"s3t-ray/([0-9a-f]{32})")


def leaf_of(entry_hash: str) -> bytes:
    """The leaf of the entry with this hash (hex, `SignedEntry.hash`)."""
    return f"{LEAF} {entry_hash}\n".encode()


def origin_of(run_id: str) -> str:
    """The name of a run's log, in its checkpoints and its verifier key."""
    return f"s3t-ray/{run_id}"


def log_key(run_id: str, public_key: bytes) -> VerifierKey:
    """What verifies the checkpoints of a run's log; `public_key`: its 32 raw bytes."""
    return VerifierKey(origin_of(run_id), ED25519, public_key)


def check_inclusion(
    entry: SignedEntry,
    proof: str,
    witnesses: tuple[VerifierKey, ...] = (),
    quorum: int = 0,
    keys: LogKeys | None = None,
) -> tuple[LogHead, dict[VerifierKey, int]]:
    """The checkpoint under which an entry, whose signature is known to be genuine, stands in its run's log.

    `proof`: text of a c2sp.org/tlog-proof. Also when which of `witnesses` cosigned the checkpoint (seconds since
    1970). `keys`: of the log, any of which may have signed the checkpoint while it signed; None: the one that signed
    the entry. VerificationFailed: it proves nothing of the kind, or fewer than `quorum` of the witnesses cosigned.
    """
    found = LogProof.parse(proof)
    origin = LogHead.parse(found.checkpoint.text).origin
    named = _ORIGIN.fullmatch(origin)
    run_id = getattr(entry.facts, "run_id", None)  # the first format has none
    if named is None or run_id not in (None, named[1]):
        raise VerificationFailed(
            f"the proof is for log {origin!r}, but the entry is from run {entry.facts.run!r} ({run_id})",
            "give the proof that came with this entry",
        )
    if found.index != entry.facts.sequence - 1:
        raise VerificationFailed(
            f"the proof is for entry {found.index + 1} of the log, but this is entry {entry.facts.sequence}",
            "give the proof that came with this entry",
        )
    size = LogHead.parse(found.checkpoint.text).size
    mine = {key: last for key, (_, last) in (keys.spans if keys is not None else {}).items()} or {
        entry.public_key: None
    }
    candidates = [log_key(named[1], bytes.fromhex(key)) for key, last in mine.items() if last is None or size <= last]
    signed = found.checkpoint.signed_by(candidates)
    key = signed[0] if signed else log_key(named[1], bytes.fromhex(entry.public_key))
    return found.check(leaf_of(entry.hash), key, witnesses, quorum)
