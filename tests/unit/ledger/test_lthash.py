"""The digest of a set: order-free, invertible, the same on every machine."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.ledger.lthash import ELEMENTS, STATE_BYTES, LtHash16
from tests.unit.ledger.world import name

DIGESTS = st.lists(st.binary(min_size=32, max_size=32), max_size=12, unique=True)


def of(digests: list[bytes]) -> LtHash16:
    lthash = LtHash16()
    lthash.add(digests)
    return lthash


def slow_digest(digests: list[bytes]) -> str:
    """The same by the definition, one number at a time."""
    total = [0] * ELEMENTS
    for digest in digests:
        data = blake3(digest).digest(2 * ELEMENTS)
        for place in range(ELEMENTS):
            total[place] = (total[place] + data[2 * place] + 256 * data[2 * place + 1]) % 65536
    state = b"".join(number.to_bytes(2, "little") for number in total)
    return hashlib.sha256(b"s3t/slice/2" + state + len(digests).to_bytes(8, "big")).hexdigest()


@given(DIGESTS)
def test_equals_the_definition(digests: list[bytes]) -> None:
    assert of(digests).digest() == slow_digest(digests)


@given(DIGESTS, st.randoms(use_true_random=False))
def test_order_and_grouping_do_not_count(digests: list[bytes], random: object) -> None:
    shuffled = list(digests)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one_by_one = LtHash16()
    for digest in shuffled:
        one_by_one.add([digest])
    assert one_by_one.digest() == of(digests).digest()


@given(DIGESTS, DIGESTS)
def test_who_leaves_leaves_no_trace(stay: list[bytes], leave: list[bytes]) -> None:
    leave = [digest for digest in leave if digest not in stay]
    lthash = of(leave + stay)
    lthash.remove(leave)
    assert (lthash.state, lthash.members, lthash.digest()) == (of(stay).state, len(stay), of(stay).digest())


@given(DIGESTS, DIGESTS)
def test_a_whole_sum_leaves_as_its_members_would(stay: list[bytes], leave: list[bytes]) -> None:
    leave = [digest for digest in leave if digest not in stay]
    lthash = of(leave + stay)
    lthash.remove_sum(of(leave))
    assert (lthash.state, lthash.members, lthash.digest()) == (of(stay).state, len(stay), of(stay).digest())


def test_many_equal_few_at_a_time() -> None:
    """More members than are summed at once."""
    digests = [name("digest", number) for number in range(1000)]
    pieces = LtHash16()
    for start in range(0, 1000, 7):
        pieces.add(digests[start : start + 7])
    assert pieces.digest() == of(digests).digest()
    assert pieces.members == 1000


def test_state_survives_storage() -> None:
    lthash = of([name("digest", 1), name("digest", 2)])
    again = LtHash16(lthash.state, lthash.members)
    again.add([name("digest", 3)])
    lthash.add([name("digest", 3)])
    assert again.digest() == lthash.digest()
    assert len(lthash.state) == STATE_BYTES


def test_known_answers_do_not_drift() -> None:
    """Slice digests name trained stages: another answer would retrain every run there is."""
    assert LtHash16().digest() == "04b711ac589c259072b484c3c8510847e49a74e1d772f4d525a42398fd9ab5f4"
    assert (
        of([bytes(32), bytes(range(32))]).digest() == "ca3eb8faae0c7b5c7319e913c2a88d3bb575df5f2b519d1f613def70cdd19ae1"
    )


def test_different_sets_differ() -> None:
    sets = [[], [1], [2], [1, 2], [1, 3]]
    assert len({of([name("digest", member) for member in members]).digest() for members in sets}) == len(sets)


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2048 bytes, got 3"):
        LtHash16(b"abc")
    with pytest.raises(ValueError, match="32 bytes, got 3"):
        LtHash16().add([b"abc"])
