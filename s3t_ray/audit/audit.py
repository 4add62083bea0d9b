"""`s3t audit`: everything that can be checked about a run, on top of `verify`.

In: an open run, and certificates that were issued earlier. Out: an AuditReport with one line per problem. Reads only.
It checks that
- the config still has the recipe that the run was started with;
- the chain of certificates is complete, signed by the run's own key, and agrees with the ledger;
- the published log matches that chain, file by file (`log_files.py`);
- the ledger agrees with itself and its history (`ledger/consistency.py`);
- slices contain exactly the ledger's records, as verified with the secret key; live stages follow from them and have
  the accepted bytes (`verify.py`);
- the storage contains nothing that should be gone (`leftovers.py`);
- with `replay`, stages retrained from the retained records alone have the same bytes.

What it cannot find, and what can:
- a ledger and a storage that were reset together to an earlier time: certificates issued since then (`known`), or the
  hash of the newest one, kept elsewhere;
- weights that were trained on something else and then accepted, or a task head or adapter config changed together with
  its manifest: a replay of that stage;
- anything that the holder of the secret key rewrites everywhere: certificates and hashes kept elsewhere;
- copies outside the run, and old row versions in PostgreSQL: nothing.
A run is checked in its current state, even during a deletion or a training. A change during the audit can look like a
problem; another audit then does not report it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from s3t_ray.audit.log_files import published_otherwise
from s3t_ray.audit.verify import verify
from s3t_ray.config.location import CONFIG_FILE
from s3t_ray.config.recipe import recipe
from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.keys import PUBLIC_FILE
from s3t_ray.ledger.rows.log_rows import CERTIFYING, EntryKind
from s3t_ray.ledger.values import StoredEntry
from s3t_ray.plan.identity import recipe_digest
from s3t_ray.proof.key_entry import keys_of
from s3t_ray.proof.receipt import read_handed
from s3t_ray.proof.run_log import name_of, verify_chain, verify_entry
from s3t_ray.proof.signed_entry import FIRST, LogKeys, SignedEntry
from s3t_ray.run.integrity.config_seal import config_problems
from s3t_ray.run.integrity.log_copy import LogCopy
from s3t_ray.run.integrity.run_identity import RUN_FILE, lost_entries, read_mark
from s3t_ray.run.log.issued_certificates import log_keys
from s3t_ray.run.log.log_witnesses import WitnessAddress
from s3t_ray.run.reports import AuditReport, Verification
from s3t_ray.run.run import Run


def audit(
    run: Run,
    *,
    replay: int = 0,
    known: Sequence[str] = (),
    receipts: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
    witnesses: Sequence[WitnessAddress] = (),
    trusted_key: bytes | None = None,
    address: str | None = None,
    watch: Callable[[str], None] = lambda line: None,
) -> AuditReport:
    """Check the entire run. `known`: texts of earlier certificates or receipts, which must be in the log.

    `receipts`: texts of receipts as they were handed out (`proof/receipt.py`). `checkpoints`: heads of the log kept
    elsewhere, which the log must continue; `witnesses`: to ask for the newest checkpoint that they cosigned.

    `trusted_key`: the public key (PEM) that the auditor got from another source. The run's config names its ledger and
    keys, so an attacker with write access to the storage could name others that are consistent. `replay`: number of
    live stages to retrain. LedgerError: the keys are lost or wrong. A replay raises its own errors. Every other problem
    is a line of the report.
    """
    watch("certificates")
    stored = run.ledger.log()
    known = (*known, *(read_handed(text).receipt.to_json() for text in receipts))
    problems = [
        *_memory(run),
        *_public_key(run, trusted_key),
        *recipe_problems(run),
        *config_problems(run),
        *chain_problems(run, stored, run.keys.public_key_pem),
        *_known(run, stored, known),
        *published_otherwise(run, stored, checkpoints, witnesses),
    ]
    watch("the ledger against itself")
    checked = Verification(records=0, stages=0, problems=())
    try:
        problems += (f"ledger: {problem}" for problem in run.ledger.contradictions())
        checked = verify(run, replay=replay, address=address, watch=watch)
    except (ValueError, KeyError, TypeError) as error:
        # A row contains something that our code never writes.
        problems.append(f"the ledger cannot be understood, and was not checked to the end: {error!r}")
    return AuditReport(
        records=checked.records,
        stages=checked.stages,
        problems=(*problems, *checked.problems),
        replayed=checked.replayed,
        excused=checked.excused,
        certificates=sum(row.kind == EntryKind.CERTIFICATE for row in stored),
        head=stored[-1].hash if stored else FIRST,
        public_key=run.keys.fingerprint,
    )


def _public_key(run: Run, trusted: bytes | None) -> Iterator[str]:
    """Check the auditors' copy of the public key, and that the key is the trusted one."""
    if trusted is not None and not _keys(run, trusted).cover(run.keys.public_key.hex(), run.ledger.log_length()):
        yield (
            f"the run's key (fingerprint {run.keys.fingerprint}, in {run.location.keys_dir}) is not the trusted one: "
            f"{CONFIG_FILE} names other keys and perhaps another ledger"
        )
    path = run.location.keys_dir / PUBLIC_FILE
    if not path.is_file():
        yield f"{path} is gone: auditors have no public key to verify certificates with"
    elif path.read_bytes() != run.keys.public_key_pem:
        yield f"{path} is not the run's public key"


def _memory(run: Run) -> Iterator[str]:
    """What the keys remember of the log is in it."""
    lost = lost_entries(run.location, run.ledger)
    if lost is not None:
        yield lost
    copy = LogCopy.of(run.location.log_copy, run.ledger.run_id)
    head = run.ledger.log_length()
    if copy is not None and (kept := len(copy.texts())) < head:
        yield (
            f"the copy of the log in {copy.folder} ends at entry {kept}, the log at {head}: what was deleted since "
            "could not be deleted again after a backup was restored"
        )


def recipe_problems(run: Run) -> Iterator[str]:
    """Check that the recipe digest in stage ids matches the settings in the ledger and in the config."""
    if run.config.name != run.row.name:
        yield f"{CONFIG_FILE} names the run {run.config.name!r}, but the ledger names it {run.row.name!r}"
    if run.ledger.is_sealed() and read_mark(run.store) is None:
        yield f"{RUN_FILE} is gone: the storage no longer says which run it belongs to (`s3t train` writes it again)"
    try:
        settings = json.loads(run.row.recipe_json)
    except ValueError:
        settings = None
    if recipe_digest(settings) != run.row.recipe_digest:
        yield "the ledger's recipe is not the one in the names of its stages"
    if recipe_digest(recipe(run.config, run.row.base_digest)) != run.row.recipe_digest:
        yield f"{CONFIG_FILE} has another recipe than the one that the run was started with"


def chain_problems(run: Run, stored: Sequence[StoredEntry], pem: bytes) -> Iterator[str]:
    """Check each entry, then the log if all are genuine. `pem`: the run's public key."""
    keys = _keys(run, pem)
    genuine: list[SignedEntry] = []
    for row in stored:
        name = f"certificate {row.sequence}" if row.kind in CERTIFYING else f"{row.kind} {row.sequence}"
        try:
            entry = verify_entry(row.text, keys)
        except VerificationFailed as error:
            yield f"{name}: {error.problem}"
            continue
        genuine.append(entry)
        facts = entry.facts
        of = getattr(facts, "request_id", None)
        if (facts.sequence, entry.hash, of) != (row.sequence, row.hash, row.request_id):
            yield f"{name} is in the place of another entry: it is number {facts.sequence}"
    if len(genuine) == len(stored):
        try:
            verify_chain([row.text for row in stored], pem)
        except VerificationFailed as error:
            yield error.problem


def _keys(run: Run, public_key: bytes) -> LogKeys:
    """All keys of the log, given one of them. Only that key if a change of key is not genuine."""
    try:
        return log_keys(run, public_key)
    except VerificationFailed:
        return keys_of(public_key, ())


def _known(run: Run, stored: Sequence[StoredEntry], known: Sequence[str]) -> Iterator[str]:
    """Check that everything issued earlier is in the log, character by character."""
    texts = {row.text.strip() for row in stored}
    for text in known:
        try:
            entry = verify_entry(text, _keys(run, run.keys.public_key_pem))
        except VerificationFailed as error:
            yield f"a certificate or receipt from earlier: {error.problem}"
            continue
        if text.strip() in texts:
            continue
        problem = f"{name_of(entry)} (entry {entry.facts.sequence} of the log) was handed out, but is not in the log"
        other = _repeated(stored, entry)
        yield problem if other is None else f"{problem}, which has another of that deletion as entry {other}: {_AGAIN}"


def _repeated(stored: Sequence[StoredEntry], entry: SignedEntry) -> int | None:
    """Number of the receipt in the log for the deletion that this entry is of; None: there is none."""
    request = getattr(entry.facts, "request_id", None)
    found = (row.sequence for row in stored if row.kind == EntryKind.RECEIPT and row.request_id == request)
    return next(found, None) if request is not None else None


_AGAIN = "the run was restored from an older copy and the deletion repeated, or the log was rewritten"
