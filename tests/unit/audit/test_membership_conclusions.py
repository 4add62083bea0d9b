"""The audit's conclusions: every finding follows from the intervals, and claims no more than was measured."""

from __future__ import annotations

import pytest

from s3t_ray.audit.membership_conclusions import Groups, conclusion, finding
from s3t_ray.audit.membership_report import AttackResult, Finding, GroupResult, Interval, NamedRecords


def group(low: float, high: float, *others: tuple[float, float], records: int = 5) -> GroupResult:
    """A group whose first attack has this interval, and whose Min-K% attacks have the others."""
    names = ("reference_loss", "min_k", "min_k_reference")
    return GroupResult(
        records=records,
        attacks=tuple(
            AttackResult(
                attack=name,
                auc=Interval(value=(start + end) / 2, low=start, high=end),
                found=(),
                mean_score=0.0,
                mean_never_seen_score=0.0,
            )
            for name, (start, end) in zip(names, ((low, high), *others), strict=False)
        ),
    )


def say(
    retained: GroupResult,
    named: GroupResult | None,
    known: NamedRecords | None,
    other: GroupResult | None = None,
    named_other: GroupResult | None = None,
) -> str:
    return conclusion(Groups(retained, other, named, named_other), known)


def told(**numbers: int) -> NamedRecords:
    none = dict.fromkeys(NamedRecords.model_fields, 0)
    return NamedRecords(**{**none, "given": 5, **numbers})


MEMBERS = group(0.8, 0.9, records=100)
NO_TRACE = group(0.3, 0.7)


@pytest.mark.parametrize(
    ("retained", "named", "expected"),
    [
        (group(0.45, 0.7), None, Finding.NO_POWER),
        (group(0.45, 0.7), group(0.9, 1.0), Finding.NO_POWER),
        (group(0.5, 0.9), None, Finding.NO_POWER),
        (MEMBERS, None, Finding.POWER_ONLY),
        (MEMBERS, group(0.55, 0.95), Finding.ABOVE_NEVER_SEEN),
        (MEMBERS, NO_TRACE, Finding.AS_NEVER_SEEN),
        (MEMBERS, group(0.1, 0.4), Finding.AS_NEVER_SEEN),
        (MEMBERS, group(0.3, 0.85), Finding.INCONCLUSIVE),
    ],
)
def test_every_finding_follows_from_the_intervals(
    retained: GroupResult, named: GroupResult | None, expected: Finding
) -> None:
    assert finding(retained, named) is expected


def test_without_power_nothing_is_concluded() -> None:
    text = say(group(0.45, 0.7), NO_TRACE, told(deleted=5))
    assert text.startswith("No power")
    assert "proves nothing about any record" in text
    assert "named" not in text


def test_no_trace_is_measured_and_not_proved() -> None:
    text = say(MEMBERS, NO_TRACE, told(deleted=5))
    assert "50% of pairs, 95% interval 30% to 70%" in text
    assert "This attack finds no trace of them" in text
    assert "measured, not proved" in text


def test_too_few_records_are_said_to_be_too_few() -> None:
    text = say(MEMBERS, group(0.3, 0.85, records=1), told(deleted=1))
    assert "The submitted record is not told apart from never-seen ones" in text
    assert "submit more records" in text
    assert "no trace" not in text


def test_another_attack_that_sees_them_is_not_kept_quiet() -> None:
    members, named = group(0.8, 0.9, (0.4, 0.6), (0.7, 0.8)), group(0.3, 0.7, (0.6, 0.9), (0.6, 0.9))
    text = say(members, named, told(deleted=5))
    assert "But Min-K% against the reference models puts them above it" in text
    assert text.count("But ") == 1  # Min-K% alone has no power here: what it says of them means nothing


def test_a_sharper_look_at_easy_texts_says_that_they_are_easy() -> None:
    members, named = group(0.8, 0.9, (0.6, 0.9)), group(0.3, 0.7, (0.6, 0.9))
    text = say(members, named, told(deleted=5), named_other=group(0.3, 0.7, (0.7, 0.9)))
    assert "But Min-K%, which takes nothing off for easy texts, puts them above it" in text
    assert "80% under other shards' models, which never saw them" in text


def test_above_is_expected_of_records_that_models_learned() -> None:
    text = say(MEMBERS, group(0.7, 0.9), told(retained=5, seen=4))
    assert "4 of those given are retained" in text
    assert "this is expected" in text


def test_above_without_a_cause_names_what_to_look_at_before_blame() -> None:
    named = group(0.7, 0.9)
    text = say(MEMBERS, named, told(deleted=5, equal_elsewhere=3), named_other=group(0.2, 0.6))
    assert "40% under other shards' models, which never saw them" in text
    assert "no live model was trained on them" in text
    assert "3 other retained records have the same content" in text
    assert "chance (1 in 40)" in text
    assert "`s3t verify --replay` decides" in text
    assert "same facts in other records" in say(MEMBERS, named, told(deleted=5))


def test_an_unfair_yardstick_is_said() -> None:
    fair, unfair = group(0.45, 0.6), group(0.6, 0.7)
    assert "comparable" not in say(MEMBERS, NO_TRACE, told(), fair)
    assert "not quite comparable" in say(MEMBERS, NO_TRACE, told(), unfair)


def test_nothing_named_is_nothing_measured() -> None:
    assert "No records were submitted" in say(MEMBERS, None, None)
    assert "None of the submitted records could be tested" in say(MEMBERS, None, told(no_model=5))
