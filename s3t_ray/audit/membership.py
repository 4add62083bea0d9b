"""Membership inference on a run: do its live models reveal which records they were trained on?

In: an open run, and optionally a file of submitted records (typically a deleted person's). Out: a MembershipAudit. The
other shards' models have never seen a record of shard k, so they are its reference models (the base model if there is
only one shard). Three groups are compared with the held-out records, which no model saw: retained records under their
own shard's model (the attack must find them, or it has no power), the same under another shard's model (it must not
find them there), and the submitted records.

Reads only; contents stay in memory and never reach the report. It measures, and never proves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s3t_ray.audit.attack_scores import (
    Attack,
    Lens,
    RecordLoss,
    ScoreEstimate,
    auc,
    detections,
    other_lens,
    own_lens,
    score,
)
from s3t_ray.audit.membership_conclusions import Groups, conclusion, finding
from s3t_ray.audit.membership_records import Asked, Chosen, LiveModel, choose, live_models, read_named
from s3t_ray.audit.membership_report import (
    AttackResult,
    AuditedModel,
    FoundAt,
    GroupResult,
    Interval,
    MembershipAudit,
    NamedRecords,
)
from s3t_ray.ensemble.answers import Chain
from s3t_ray.errors import ConfigError, DataError
from s3t_ray.run.run import Run
from s3t_ray.runtime.model_host import InThisProcess, ModelHost

SAMPLE = 256
_TOLD_EVERY = 50


def audit_membership(
    run: Run,
    *,
    records: Path | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    watch: Callable[[str], None] = lambda line: None,
    host: ModelHost | None = None,
) -> MembershipAudit:
    """Attack the run's live models with loss and Min-K%, and report how well membership shows.

    `records`: a file in the format of the run's data (ids, subjects), to test in addition to the run's own records.
    `sample`: maximum number of retained and of held-out records. `host`: where to load the models; None: this process.
    The same seed on the same run gives the same report on one machine. DataError: there is nothing to compare with, or
    the file does not fit. ConfigError: no shard has a live model. StoreError: a stage is damaged.
    """
    if sample < 2:
        raise ConfigError(f"the sample must be 2 records or more, got {sample}", "leave it out for 256")
    named = read_named(run, records) if records is not None else ()
    models = live_models(run, named, seed)
    chosen = choose(run, models, named, sample, seed)
    losses = _judge(host or InThisProcess(run), models, chosen, watch)
    at = {model.shard: index for index, model in enumerate(models)}
    never_seen = [loss for loss in losses.never_seen if loss is not None]
    if not never_seen:
        raise DataError(
            f"none of the {len(chosen.never_seen)} held-out records has a token to predict", "raise task.max_tokens"
        )

    def own(group: Sequence[tuple[int, RecordLoss | None]]) -> GroupResult | None:
        return _compare(group, lambda shard: own_lens(at[shard], len(models)), never_seen, seed)

    def other(group: Sequence[tuple[int, RecordLoss | None]]) -> GroupResult | None:
        if len(models) == 1:
            return None
        return _compare(group, lambda shard: other_lens(at[shard], len(models)), never_seen, seed)

    retained, other_shards = own(losses.retained), other(losses.retained)
    if retained is None:
        raise DataError("none of the retained records has a token to predict", "raise task.max_tokens")
    named_own, named_other = own(losses.named), other(losses.named)
    told = _told(chosen, losses) if records is not None else None
    return MembershipAudit(
        finding=finding(retained, named_own),
        conclusion=conclusion(Groups(retained, other_shards, named_own, named_other), told),
        models=tuple(AuditedModel(shard=model.shard, depth=len(model.chain), slices=model.slices) for model in models),
        never_seen=len(never_seen),
        retained=retained,
        other_shards=other_shards,
        named=named_own,
        named_other_shards=named_other,
        named_records=told,
        seed=seed,
    )


@dataclass(frozen=True)
class _Losses:
    """The losses of each chosen record, some with their shard; None: it has nothing to predict."""

    never_seen: Sequence[RecordLoss | None]
    retained: Sequence[tuple[int, RecordLoss | None]]
    named: Sequence[tuple[int, RecordLoss | None]]


def judged(run: Run, chains: Sequence[Chain], contents: Sequence[str]) -> Iterator[RecordLoss | None]:
    """The losses of each content under these models, which this loads."""
    from s3t_ray.audit.record_losses import Judge

    yield from Judge(run.config, run.base, run.store, chains).losses(contents)


def _judge(host: ModelHost, models: Sequence[LiveModel], chosen: Chosen, watch: Callable[[str], None]) -> _Losses:
    watch(f"membership: loading {len(models)} models")
    chains: list[Chain] = [model.chain for model in models]
    if len(models) <= 2:
        chains.append(())  # the reference if no other shard can be one
    live = {model.shard for model in models}
    named = [asked for asked in chosen.named if asked.shard in live]
    contents = [*chosen.never_seen, *(asked.content for asked in (*chosen.retained, *named))]
    losses = []
    for loss in host.stream(judged, chains, contents):
        losses.append(loss)
        if len(losses) % _TOLD_EVERY == 0:
            watch(f"membership: {len(losses)} of {len(contents)} records")
    never_seen, rest = losses[: len(chosen.never_seen)], losses[len(chosen.never_seen) :]
    return _Losses(
        never_seen,
        _with_shards(chosen.retained, rest[: len(chosen.retained)]),
        _with_shards(named, rest[len(chosen.retained) :]),
    )


def _with_shards(
    asked: Sequence[Asked], losses: Sequence[RecordLoss | None]
) -> Sequence[tuple[int, RecordLoss | None]]:
    return [(record.shard, loss) for record, loss in zip(asked, losses, strict=True)]


def _compare(
    records: Sequence[tuple[int, RecordLoss | None]],
    lens_of: Callable[[int], Lens],
    never_seen: Sequence[RecordLoss],
    seed: int,
) -> GroupResult | None:
    """Every attack on the group, each record against never-seen ones with its own lens; None: the group is empty."""
    group = [(loss, lens_of(shard)) for shard, loss in records if loss is not None]
    if not group:
        return None
    tokens = group[0][0].min_k is not None
    results = []
    for attack in Attack if tokens else (Attack.REFERENCE_LOSS,):
        tested_N = np.array([score(loss, attack, lens) for loss, lens in group])
        rows: Mapping[Lens, list[float]] = {
            lens: [score(loss, attack, lens) for loss in never_seen] for lens in {lens for _, lens in group}
        }
        never_seen_NM = np.array([rows[lens] for _, lens in group])
        results.append(
            AttackResult(
                attack=str(attack),
                auc=_interval(auc(tested_N, never_seen_NM, seed)),
                found=tuple(
                    FoundAt(false_positive_rate=each.false_positives, found=_interval(each.found))
                    for each in detections(tested_N, never_seen_NM, seed)
                ),
                mean_score=float(tested_N.mean()),
                mean_never_seen_score=float(never_seen_NM.mean()),
            )
        )
    return GroupResult(records=len(group), attacks=tuple(results))


def _interval(estimate: ScoreEstimate) -> Interval:
    return Interval(value=estimate.value, low=estimate.low, high=estimate.high)


def _told(chosen: Chosen, losses: _Losses) -> NamedRecords:
    known = chosen.known
    return NamedRecords(
        given=known.given,
        retained=known.retained,
        changed=known.changed,
        seen=known.seen,
        deleted=known.deleted,
        unknown=known.unknown,
        held_out=known.held_out,
        no_model=len(chosen.named) - len(losses.named),
        nothing_to_predict=sum(loss is None for _, loss in losses.named),
        equal_elsewhere=known.equal_elsewhere,
    )
