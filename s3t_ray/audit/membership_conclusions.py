"""The conclusion of a membership audit, worded so that it claims no more than was measured. Pure.

In: the measurements of each group. Out: a Finding and its conclusion in plain words.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3t_ray.audit.membership_report import AttackResult, Finding, GroupResult, Interval, NamedRecords

CHANCE = 0.5
_NAMES = {
    "reference_loss": "loss against the reference models",
    "min_k": "Min-K%, which takes nothing off for easy texts,",
    "min_k_reference": "Min-K% against the reference models",
}


@dataclass(frozen=True)
class Groups:
    """The measurements: each group under the models that learned its shard's records, and under others."""

    retained: GroupResult
    other_shards: GroupResult | None
    named: GroupResult | None
    named_other_shards: GroupResult | None


def finding(retained: GroupResult, named: GroupResult | None) -> Finding:
    """The finding of the first attack, which was chosen in advance: picking the best of several would be biased."""
    if retained.auc.low <= CHANCE:
        return Finding.NO_POWER
    if named is None:
        return Finding.POWER_ONLY
    if named.auc.low > CHANCE:
        return Finding.ABOVE_NEVER_SEEN
    return Finding.AS_NEVER_SEEN if named.auc.high < retained.auc.low else Finding.INCONCLUSIVE


def conclusion(groups: Groups, told: NamedRecords | None) -> str:
    """One paragraph for decision makers. `told` is None if no records were submitted."""
    retained, other = groups.retained.auc, groups.other_shards
    if finding(groups.retained, groups.named) is Finding.NO_POWER:
        return (
            "No power: the attack does not tell records that these models were trained on from records that no model "
            f"saw ({_pairs(retained)}). So this part of the audit proves nothing about any record, deleted or not; "
            "the proof is the replay of `s3t verify`."
        )
    sentences = [
        "The attack works here: it ranks a record that the models were trained on above one that no model saw in "
        f"{_pairs(retained)}."
    ]
    if other is not None and not other.auc.low <= CHANCE <= other.auc.high:
        sentences.append(
            "But under models that never saw them the same records also differ from the held-out ones "
            f"({_pairs(other.auc)}): the held-out records are not quite comparable, and a difference of that "
            "size means nothing."
        )
    if told is None:
        sentences.append("No records were submitted, so nothing was measured about deleted ones.")
    elif groups.named is None:
        sentences.append("None of the submitted records could be tested, so nothing was measured about them.")
    else:
        sentences += _about_named(groups, groups.named, told)
    return " ".join(sentences)


def _about_named(groups: Groups, named: GroupResult, told: NamedRecords) -> list[str]:
    which = "The submitted record is" if named.records == 1 else f"The {named.records} submitted records are"
    members = f"{_percent(groups.retained.auc.low)} or more"
    match finding(groups.retained, named):
        case Finding.ABOVE_NEVER_SEEN:
            others = _elsewhere(groups, named.attacks[0])
            return [f"{which} above the never-seen level ({_pairs(named.auc)}{others}).", _why_above(told)]
        case Finding.AS_NEVER_SEEN:
            said = (
                f"{which} not above the never-seen level ({_pairs(named.auc)}), and below where trained records are "
                f"({members}). This attack finds no trace of them."
            )
        case _:
            said = (
                f"{which} not told apart from never-seen ones ({_pairs(named.auc)}), but that is too uncertain to "
                f"tell them from trained ones ({members}) either: submit more records to learn more."
            )
    doubts = [
        f"But {_NAMES[own.attack]} puts them above it ({_pairs(own.auc)}{_elsewhere(groups, own)})."
        for own, power in zip(named.attacks[1:], groups.retained.attacks[1:], strict=True)
        if power.auc.low > CHANCE and own.auc.low > CHANCE
    ]
    return [said, *doubts, "This is measured, not proved: a stronger attack may see more. The proof is `s3t verify`."]


def _elsewhere(groups: Groups, own: AttackResult) -> str:
    """The same attack under models that never saw the records, where any effect comes from the texts themselves."""
    if groups.named_other_shards is None:
        return ""
    (same,) = [result for result in groups.named_other_shards.attacks if result.attack == own.attack]
    return f"; {_percent(same.auc.value)} under other shards' models, which never saw them"


def _why_above(told: NamedRecords) -> str:
    if told.seen:
        return f"{told.seen} of those given are retained, and live models were trained on them, so this is expected."
    equal = (
        f"{told.equal_elsewhere} other retained records have the same content"
        if told.equal_elsewhere
        else "the same facts in other records"
    )
    return (
        "According to the ledger no live model was trained on them. First check other explanations: "
        f"{equal}; what the base model knew before; a group that is easier than the held-out records; chance "
        "(1 in 40). `s3t verify --replay` decides whether the models were trained on them."
    )


def _pairs(auc: Interval) -> str:
    return (
        f"{_percent(auc.value)} of pairs, 95% interval {_percent(auc.low)} to {_percent(auc.high)}, where 50% is chance"
    )


def _percent(share: float) -> str:
    return f"{share:.0%}"
