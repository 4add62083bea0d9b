"""Results of a membership audit: frozen values, importable without torch, scipy or Ray.

Out: the report that the command line prints or dumps as JSON. It contains no ids or texts, only numbers about groups of
records.
"""

from __future__ import annotations

from enum import StrEnum

from s3t_ray.run.reports import Report


class Finding(StrEnum):
    """The audit's conclusion, from its first attack. All are measurements, and prove nothing."""

    NO_POWER = "no_power"  # even members are not found, so nothing follows for other records
    POWER_ONLY = "power_only"  # members are found; no other records were named
    ABOVE_NEVER_SEEN = "above_never_seen"  # the named records look like members, at least in part
    AS_NEVER_SEEN = "as_never_seen"  # not above never-seen records, and clearly below members
    INCONCLUSIVE = "inconclusive"  # not above never-seen records, but not clearly below members


class Interval(Report):
    """A measured value with its 95% confidence interval, over the choice of records."""

    value: float
    low: float
    high: float


class FoundAt(Report):
    false_positive_rate: float
    """False positive rate: share of never-seen records that the attack may accuse."""
    found: Interval
    """Share of the group's records that it then finds."""


class AttackResult(Report):
    """One attack on one group of records, against the never-seen ones."""

    attack: str
    """reference_loss, min_k or min_k_reference."""
    auc: Interval
    """Probability that a record of the group scores above a never-seen one: 0.5 is no difference."""
    found: tuple[FoundAt, ...]
    """At low false positive rates; empty if there are too few records."""
    mean_score: float
    """Nats per token; higher is more like a member."""
    mean_never_seen_score: float
    """Of the never-seen records, under the same models."""


class GroupResult(Report):
    records: int
    attacks: tuple[AttackResult, ...]
    """The first decides the finding; records with a single label have only that one."""

    @property
    def auc(self) -> Interval:
        """AUC of the deciding attack."""
        return self.attacks[0].auc


class AuditedModel(Report):
    """The live model of a shard; its references are the other listed shards' models, or the base model."""

    shard: int
    depth: int
    slices: tuple[int, ...]
    """Slices that it was trained on."""


class NamedRecords(Report):
    """Counts of the submitted records, by what the run knows about them."""

    given: int
    retained: int
    """In the run."""
    changed: int
    """Retained, but with different content; the submitted content is tested."""
    seen: int
    """Retained, and in the slices that their shard's live model learned."""
    deleted: int
    unknown: int
    """Never in the run; tested anyway, under the model of the shard where they would be."""
    held_out: int
    """Held out, so not tested."""
    no_model: int
    """Not tested, because their shard has no live model."""
    nothing_to_predict: int
    """Not tested, because they have nothing to learn."""
    equal_elsewhere: int
    """Retained records with other ids that these models learned and whose content equals that of a named one."""


class MembershipAudit(Report):
    """How well membership of a record shows in the run's live models. Measured, not proved."""

    finding: Finding
    conclusion: str
    """The finding in plain words."""
    models: tuple[AuditedModel, ...]
    never_seen: int
    """Held-out records that serve as the never-seen level."""
    retained: GroupResult
    """Power: a sample of the records that the models were trained on. The attack must find these."""
    other_shards: GroupResult | None
    """False alarms: the same sample, each under another shard's model, which never saw it. About 0.5 if the held-out
    records are a fair reference. None with a single model."""
    named: GroupResult | None
    """The submitted records; None: none were submitted, or none could be tested."""
    named_other_shards: GroupResult | None
    """The same, each under another shard's model, which never saw it: how much the texts themselves stand out."""
    named_records: NamedRecords | None
    seed: int
    """Seed of the samples and the resampling."""

    @property
    def unexplained(self) -> bool:
        """Whether records that no live model learned look as if one had: worth investigating, but not a proof."""
        told = self.named_records
        return self.finding is Finding.ABOVE_NEVER_SEEN and told is not None and told.seen == 0
