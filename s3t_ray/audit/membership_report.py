"""Results of a membership audit: frozen values, importable without torch, scipy or Ray.

In: nothing. Out: the report that the command line prints or dumps as JSON. Never ids or texts: only numbers
of groups of records.
"""

from __future__ import annotations

from enum import StrEnum

from s3t_ray.run.reports import Report


class Finding(StrEnum):
    """What the audit concludes, by its first attack. None of them proves anything: all are measured."""

    NO_POWER = "no_power"  # members are not found either, so nothing follows for other records
    POWER_ONLY = "power_only"  # members are found; no other records were named
    ABOVE_NEVER_SEEN = "above_never_seen"  # the named records look like members, at least in part
    AS_NEVER_SEEN = "as_never_seen"  # not above the never-seen ones, and surely below the members
    INCONCLUSIVE = "inconclusive"  # not above the never-seen ones, nor surely below the members


class Interval(Report):
    """A measured value with its 95% confidence interval, over the choice of records."""

    value: float
    low: float
    high: float


class FoundAt(Report):
    false_positive_rate: float
    """Share of never-seen records that the attack may accuse."""
    found: Interval
    """Share of the group's records that it then finds."""


class AttackResult(Report):
    """One attack on one group of records, against the never-seen ones."""

    attack: str
    """reference_loss, min_k or min_k_reference."""
    auc: Interval
    """Chance that a record of the group scores above a never-seen one: 0.5 is no difference."""
    found: tuple[FoundAt, ...]
    """At few false positives; empty where there are too few records to say."""
    mean_score: float
    """Nats a token; higher is more like a member."""
    mean_never_seen_score: float
    """Of the never-seen records, under the same models."""


class GroupResult(Report):
    records: int
    attacks: tuple[AttackResult, ...]
    """The first decides the finding; records judged as a whole have it alone."""

    @property
    def auc(self) -> Interval:
        """Of the attack that decides."""
        return self.attacks[0].auc


class AuditedModel(Report):
    """The live model of a shard; its references are those of the other shards listed, or the base model."""

    shard: int
    depth: int
    slices: tuple[int, ...]
    """What it was trained on."""


class NamedRecords(Report):
    """The records that the caller handed in, by what the run knows of them."""

    given: int
    retained: int
    """In the run."""
    changed: int
    """Retained, but with other content than was handed in; the content handed in is what is tested."""
    seen: int
    """Retained, and in the slices that their shard's live model learned."""
    deleted: int
    unknown: int
    """Never in the run; they are tested all the same, under the model of the shard where they would fall."""
    held_out: int
    """Kept from training: not tested."""
    no_model: int
    """Not tested, because their shard has no live model."""
    nothing_to_predict: int
    """Not tested, because nothing of them would be learned."""
    equal_elsewhere: int
    """Retained records with other ids that these models learned and whose content equals that of a named one."""


class MembershipAudit(Report):
    """How well a record's membership shows in the run's live models. Measured, not proved."""

    finding: Finding
    conclusion: str
    """The finding in plain words."""
    models: tuple[AuditedModel, ...]
    never_seen: int
    """Held-out records that serve as the never-seen level."""
    retained: GroupResult
    """Power: a sample of the records that the models were trained on. The attack must find these."""
    other_shards: GroupResult | None
    """False alarm: the same sample, each under another shard's model, which never saw it. About 0.5 where the
    held-out records are a fair yardstick. None with a single model."""
    named: GroupResult | None
    """The records handed in; None: none were, or none of them could be tested."""
    named_other_shards: GroupResult | None
    """The same, each under another shard's model, which never saw it: how far these texts stand out by themselves."""
    named_records: NamedRecords | None
    seed: int
    """Of the samples and the resampling."""

    @property
    def unexplained(self) -> bool:
        """Whether records that no live model learned look as if one had: worth a look, not a proof."""
        told = self.named_records
        return self.finding is Finding.ABOVE_NEVER_SEEN and told is not None and told.seen == 0
