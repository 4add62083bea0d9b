"""The place of a record depends only on its name, the seed and the secret."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.config.schema import Data
from s3t_ray.data.partition import HOLDOUT, Place, place, places
from tests.unit.data.conftest import build_config

CONFIG = build_config()
SECRET = bytes(range(32))
SECRETS = st.sampled_from([None, SECRET])
BY_SUBJECT = build_config(data=Data(path="x", subject_field="who", partition_by="subject"))


def test_known_places_never_change() -> None:
    """A change here would move every record of every run there is."""
    config = build_config(seed=7)
    assert [place(name, None, config, None) for name in ("a", "b", "c")] == [Place(0, 1), Place(2, 1), Place(0, 3)]
    assert [place(name, None, config, SECRET) for name in ("a", "b", "c")] == [Place(1, 1), Place(1, 0), Place(2, 1)]


@given(SECRETS, st.text(), st.none() | st.text(), st.none() | st.text())
def test_by_record_the_subject_does_not_matter(
    secret: bytes | None, record: str, subject: str | None, another: str | None
) -> None:
    spot = place(record, subject, CONFIG, secret)
    assert spot == place(record, another, CONFIG, secret)
    assert 0 <= spot.shard < 3
    assert 0 <= spot.slice < 4


@given(SECRETS, st.text(), st.text(), st.text())
def test_by_subject_a_persons_records_lie_together(
    secret: bytes | None, record: str, another: str, subject: str
) -> None:
    assert place(record, subject, BY_SUBJECT, secret) == place(another, subject, BY_SUBJECT, secret)


@pytest.mark.parametrize("secret", [None, SECRET])
def test_without_a_subject_a_record_goes_by_its_id(secret: bytes | None) -> None:
    names = [str(number) for number in range(50)]
    assert [place(name, None, BY_SUBJECT, secret) for name in names] == [
        place(name, None, CONFIG, secret) for name in names
    ]
    # A person called like a record's id does not share its fate.
    assert [place("x", name, BY_SUBJECT, secret) for name in names] != [
        place(name, None, BY_SUBJECT, secret) for name in names
    ]


@pytest.mark.parametrize("secret", [None, SECRET])
def test_places_fill_evenly_and_follow_the_seed(secret: bytes | None) -> None:
    names = [f"record {number}" for number in range(12_000)]
    filled = Counter(place(name, None, CONFIG, secret) for name in names)
    assert set(filled) == set(places(CONFIG)) - {HOLDOUT}
    assert max(filled.values()) < 1.15 * 1000
    assert min(filled.values()) > 0.85 * 1000
    reseeded = build_config(seed=1)
    moved = sum(place(name, None, CONFIG, secret) != place(name, None, reseeded, secret) for name in names)
    assert moved > 10_000


@pytest.mark.parametrize("secret", [None, SECRET])
def test_the_held_out_share_moves_nobody_else(secret: bytes | None) -> None:
    some = build_config(data=Data(path="x", holdout=0.1))
    more = build_config(data=Data(path="x", holdout=0.2))
    names = [f"record {number}" for number in range(5000)]
    held = [place(name, None, some, secret) == HOLDOUT for name in names]
    assert 400 < sum(held) < 600
    for name, out in zip(names, held, strict=True):
        assert out or place(name, None, some, secret) == place(name, None, CONFIG, secret)
        assert not out or place(name, None, more, secret) == HOLDOUT


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_person_is_held_out_whole(secret: bytes | None) -> None:
    data = Data(path="x", subject_field="who", partition_by="subject", holdout=0.5)
    config = build_config(data=data)
    out = {subject: {place(record, subject, config, secret) == HOLDOUT for record in "abcd"} for subject in "ABCDEFGH"}
    assert all(len(fates) == 1 for fates in out.values())
    assert len(set(map(frozenset, out.values()))) == 2


def test_places_lists_every_slice_once() -> None:
    assert places(CONFIG)[0] == HOLDOUT
    assert len(places(CONFIG)) == len(set(places(CONFIG))) == 13


def test_who_lacks_the_secret_can_tell_nothing_of_a_place() -> None:
    """Under the seed alone, or another secret, a guess is right as often as chance has it."""
    names = [f"record {number}" for number in range(12_000)]
    for guess in (None, bytes(32)):
        right = sum(place(name, None, CONFIG, guess) == place(name, None, CONFIG, SECRET) for name in names)
        assert 0.85 * 1000 < right < 1.15 * 1000  # one in twelve places
