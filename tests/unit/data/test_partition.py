"""Where a record falls depends on its name and the seed, and on nothing else."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.config.schema import Data
from s3t_ray.data.partition import HOLDOUT, Place, place, places
from tests.unit.data.conftest import build_config

CONFIG = build_config()
BY_SUBJECT = build_config(data=Data(path="x", subject_field="who", partition_by="subject"))


def test_known_places_never_change() -> None:
    """A change here would move every record of every run there is."""
    config = build_config(seed=7)
    assert [place(name, None, config) for name in ("a", "b", "c")] == [Place(0, 1), Place(2, 1), Place(0, 3)]


@given(st.text(), st.none() | st.text(), st.none() | st.text())
def test_by_record_the_subject_does_not_matter(record: str, subject: str | None, another: str | None) -> None:
    spot = place(record, subject, CONFIG)
    assert spot == place(record, another, CONFIG)
    assert 0 <= spot.shard < 3
    assert 0 <= spot.slice < 4


@given(st.text(), st.text(), st.text())
def test_by_subject_a_persons_records_lie_together(record: str, another: str, subject: str) -> None:
    assert place(record, subject, BY_SUBJECT) == place(another, subject, BY_SUBJECT)


def test_without_a_subject_a_record_goes_by_its_id() -> None:
    names = [str(number) for number in range(50)]
    assert [place(name, None, BY_SUBJECT) for name in names] == [place(name, None, CONFIG) for name in names]
    # A person called like a record's id does not share its fate.
    assert [place("x", name, BY_SUBJECT) for name in names] != [place(name, None, BY_SUBJECT) for name in names]


def test_places_fill_evenly_and_follow_the_seed() -> None:
    names = [f"record {number}" for number in range(12_000)]
    filled = Counter(place(name, None, CONFIG) for name in names)
    assert set(filled) == set(places(CONFIG)) - {HOLDOUT}
    assert max(filled.values()) < 1.15 * 1000
    assert min(filled.values()) > 0.85 * 1000
    reseeded = build_config(seed=1)
    moved = sum(place(name, None, CONFIG) != place(name, None, reseeded) for name in names)
    assert moved > 10_000


def test_the_held_out_share_moves_nobody_else() -> None:
    some = build_config(data=Data(path="x", holdout=0.1))
    more = build_config(data=Data(path="x", holdout=0.2))
    names = [f"record {number}" for number in range(5000)]
    held = [place(name, None, some) == HOLDOUT for name in names]
    assert 400 < sum(held) < 600
    for name, out in zip(names, held, strict=True):
        assert out or place(name, None, some) == place(name, None, CONFIG)
        assert not out or place(name, None, more) == HOLDOUT


def test_a_person_is_held_out_whole() -> None:
    data = Data(path="x", subject_field="who", partition_by="subject", holdout=0.5)
    config = build_config(data=data)
    out = {subject: {place(record, subject, config) == HOLDOUT for record in "abcd"} for subject in "ABCDEFGH"}
    assert all(len(fates) == 1 for fates in out.values())
    assert len(set(map(frozenset, out.values()))) == 2


def test_places_lists_every_slice_once() -> None:
    assert places(CONFIG)[0] == HOLDOUT
    assert len(places(CONFIG)) == len(set(places(CONFIG))) == 13
