"""The first half of a deletion: resolve -> commit -> receipt.

Read it from top to bottom. Needs neither Ray nor a scheduler: once `accept` returns, the deletion cannot be lost, and
stages that saw the records are no longer live. `runtime/delete.py` has the second half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from s3t_ray.data.unicode_text import is_unicode
from s3t_ray.errors import DataError, S3TError, UnknownRecords, problem_of
from s3t_ray.ledger.resolve import NamedRows
from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.ledger.values import Acceptance, DuplicateSearch, Hit, Reach
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.proof.receipt import HandedReceipt, SignedReceipt, commitment_to_text, named
from s3t_ray.proof.signed_entry import ChainHead
from s3t_ray.run.duplicates import asked, likeness
from s3t_ray.run.input.rejects import SetAside, erase_rejects, find_rejects
from s3t_ray.run.integrity.run_identity import remember
from s3t_ray.run.reports import DeletionReceipt, Impact, ShardImpact
from s3t_ray.run.run import Run
from s3t_ray.run.spellings import other_spellings

NO_DETAILS = RequestDetails()
_LISTED = 20  # maximum spellings listed in an error


def preview(run: Run, ids: Sequence[str], subjects: Sequence[str], reach: Reach = Reach.NAMED) -> Impact:
    """What deleting these records and subjects would affect now, and similar records. Changes nothing."""
    names, closure = _Names.of(run, ids, subjects), asked(run, reach)
    answer = run.ledger.preview(tuple(names.ids), tuple(names.subjects), closure)
    aside = find_rejects(run, names.ids, names.subjects)
    return Impact(
        records=answer.records,
        held_out=sum(hit.records for hit in answer.hits if hit.shard == HOLDOUT_SHARD),
        already_deleted=answer.already_deleted,
        unknown_ids=names.ids_of(answer.unknown_ids, aside),
        unknown_subjects=names.subjects_of(answer.unknown_subjects, aside),
        shards=_impacts(run, answer.hits, None),
        set_aside=aside.rows,
        likeness=likeness(answer, closure, answer.taken_along),
        other_spellings=other_spellings(run, ids, subjects),
    )


def accept(
    run: Run,
    ids: Sequence[str],
    subjects: Sequence[str],
    reach: Reach = Reach.NAMED,
    details: RequestDetails = NO_DETAILS,
) -> DeletionReceipt:
    """Delete durably: once this returns, the receipt is final. Idempotent.

    `reach`: whether to also delete records with the same, or nearly the same, content. `details`: the requester's
    details of the request; a repeat with other details adds them. Erases rows that ingest set aside before it
    returns. UnknownRecords: the run has none of the named records, and nothing was stored. LedgerError: near-duplicates
    were requested, but the run has no sketches.
    """
    names, closure = _Names.of(run, ids, subjects), asked(run, reach)
    uncopied = _copy_names(run, names, closure)
    try:
        answer = run.ledger.accept_deletion(tuple(names.ids), tuple(names.subjects), closure, names.commitment, details)
    except UnknownRecords as error:
        if rows := erase_rejects(run, names.ids, names.subjects).rows:
            raise UnknownRecords(
                f"{error.problem}; {rows} of their rows, set aside as malformed, were erased", error.fix
            ) from error
        if others := other_spellings(run, ids, subjects):
            listed = ", ".join(f"{each.kind} {each.spelling!r} ({each.records} records)" for each in others[:_LISTED])
            raise UnknownRecords(f"{error.problem}; other spellings: {listed}", error.fix) from error
        raise
    # The deletion is final. The rest is only information, and must not prevent the receipt.
    receipt = _receipt(names, answer, SetAside(0, frozenset()))
    uncopied = _remember(run, answer) or uncopied
    if uncopied is not None:
        return receipt.model_copy(update={"note": uncopied})
    try:
        receipt = _receipt(names, answer, erase_rejects(run, names.ids, names.subjects))
        impacts = () if receipt.repeated else _impacts(run, answer.receipt.hits, frozenset(receipt.stages_pruned))
        left = run.ledger.similar(answer.named, closure.threshold)
        alike, spelled = likeness(left, closure, answer.taken_along), other_spellings(run, ids, subjects)
    except (S3TError, OSError) as error:
        return receipt.model_copy(update={"note": f"accepted; what it means could not be shown: {problem_of(error)}"})
    return receipt.model_copy(update={"shards": impacts, "likeness": alike, "other_spellings": spelled})


def _remember(run: Run, answer: Acceptance) -> str | None:
    """Record the entry beside the keys and in the log's copy. Returns the problem, or None."""
    if answer.signed is not None and not answer.repeated:
        head = ChainHead(sequence=answer.signed.facts.sequence, hash=answer.signed.hash)
        remember(run.location.keys_dir, run.ledger.run_id, run.location.storage_uri, head)
    if run.log_copy is None:
        return None
    try:
        run.log_copy.catch_up(run.ledger)  # also for a repeat: an earlier attempt may have been killed before this
    except OSError as error:
        return _uncopied(error)
    return None


def _copy_names(run: Run, names: _Names, search: DuplicateSearch) -> str | None:
    """Copy the names before the commit, so that no copied receipt lacks them. Returns the problem, or None."""
    if run.log_copy is None:
        return None
    ids, subjects = tuple(names.ids), tuple(names.subjects)
    request_id = NamedRows.of(ids, subjects, search).request_id
    try:
        run.log_copy.add_names(request_id, ids, subjects, search, run.keys)
    except OSError as error:
        return _uncopied(error)
    return None


def _uncopied(error: OSError) -> str:
    return (
        f"accepted, and ledger.log_copy could not be written ({error.strerror}): ask for the same again once that is "
        "mended, or a restored backup would not know of this deletion"
    )


@dataclass(frozen=True)
class _Names:
    """Plain names by the keyed hash that the ledger stores."""

    ids: Mapping[bytes, str]
    subjects: Mapping[bytes, str]
    nonce: str
    """Opens the commitment on the receipt. Derived from the names, so a repeat gets the same value."""
    commitment: str

    @classmethod
    def of(cls, run: Run, ids: Sequence[str], subjects: Sequence[str]) -> _Names:
        for name in (*ids, *subjects):
            if not is_unicode(name):
                raise DataError(f"{name!a} contains half a surrogate pair, which is not a character", "correct it")
        text = named(ids, subjects)
        nonce = run.keys.nonce(text)
        return cls(
            dict(zip(run.keys.id_hmacs(ids), ids, strict=True)),
            {run.keys.subject_hmac(name): name for name in subjects},
            nonce,
            commitment_to_text(nonce, text),
        )

    def ids_of(self, hmacs: Iterable[bytes], aside: SetAside) -> tuple[str, ...]:
        """Plain ids, without those that have a row set aside."""
        return tuple(self.ids[name] for name in hmacs if name not in aside.names)

    def subjects_of(self, hmacs: Iterable[bytes], aside: SetAside) -> tuple[str, ...]:
        """Plain subjects, without those that have a row set aside."""
        return tuple(self.subjects[name] for name in hmacs if name not in aside.names)


def _receipt(names: _Names, answer: Acceptance, aside: SetAside) -> DeletionReceipt:
    signed = answer.signed
    return DeletionReceipt(
        request_id=answer.receipt.request_id,
        accepted_at=answer.receipt.accepted_at,
        records=answer.receipt.records,
        already_deleted=answer.receipt.already_deleted,
        unknown_ids=names.ids_of(answer.unknown_ids, aside),
        unknown_subjects=names.subjects_of(answer.unknown_subjects, aside),
        stages_pruned=answer.receipt.stages,
        repeated=answer.repeated,
        shards=(),
        set_aside=aside.rows,
        proof=None if signed is None else HandedReceipt(receipt=signed, nonce=_nonce(names, signed)),
    )


def _nonce(names: _Names, signed: SignedReceipt) -> str | None:
    """The nonce of the receipt. None: the deletion was first accepted by hashes, so its receipt commits to no names."""
    return None if signed.facts.commitment is None else names.nonce


def _impacts(run: Run, hits: Iterable[Hit], pruned: frozenset[str] | None) -> tuple[ShardImpact, ...]:
    """The impact on each shard. `pruned`: stages that the deletion took out of service; None: not deleted yet."""
    by_shard: dict[int, dict[int, int]] = {}
    for hit in hits:
        if hit.shard != HOLDOUT_SHARD:
            by_shard.setdefault(hit.shard, {})[hit.slice] = hit.records
    return tuple(_impact(run, shard, by_shard[shard], pruned) for shard in sorted(by_shard))


def _impact(run: Run, shard: int, deleted: dict[int, int], pruned: frozenset[str] | None) -> ShardImpact:
    """The effect on a shard of losing `deleted` (slice -> records), before or right after the deletion.

    Compares the slices that stages learned, because a deletion changes stage ids.
    """
    slices = run.ledger.slices(shard)
    plan, (live, _) = run.plan(shard, slices), run.ledger.standing(shard)
    before = {plan.stages[name].slices for name in live if name in plan.stages}
    if pruned:
        before |= {row.slices for row in run.ledger.stages(shard) if row.id in pruned}
    hit = [stage for stage in plan.stages.values() if not deleted.keys().isdisjoint(stage.slices)]
    gone = {stage.slices for stage in hit}
    to_come = deleted if pruned is None else {}
    retained = {state.slice: state.records - to_come.get(state.slice, 0) for state in slices}
    return ShardImpact(
        shard=shard,
        slices=tuple(sorted(deleted)),
        records=sum(deleted.values()),
        stages=len(before & gone),
        depths_before=tuple(_depth(order, before) for order in plan.orders),
        depths_after=tuple(_depth(order, before - gone) for order in plan.orders),
        retrain_stages=len(hit),
        retrain_records=sum(retained[index] for stage in hit for index in stage.slices),
    )


def _depth(order: tuple[int, ...], learned: set[tuple[int, ...]]) -> int:
    """Number of consecutive stages, from the top of a sequence, whose slices are in `learned`."""
    return next((depth for depth in range(len(order)) if order[: depth + 1] not in learned), len(order))
