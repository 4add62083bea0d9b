"""Text token by token: the same as the text of all tokens at once, and cut where a stop text begins."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.ensemble.batching.text_reader import TextReader

WORDS = [
    b"a",
    b"b",
    b"ab",
    "é".encode()[:1],
    "é".encode()[1:],
    "漢".encode()[:2],
    "漢".encode()[2:],
    b" stop",
    b"",
    b"\n",
]


def decode(ids: Sequence[int]) -> str:
    return b"".join(WORDS[token] for token in ids).decode(errors="replace")


def read(ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[list[str], bool]:
    reader = TextReader(decode, stop)
    pieces = []
    for token in ids:
        pieces.append(reader.read(token))
        if reader.stopped:
            return pieces, True
    pieces.append(reader.end())
    return pieces, reader.stopped


IDS = st.lists(st.integers(0, len(WORDS) - 1), max_size=40)


@given(IDS)
def test_the_pieces_are_the_text(ids: list[int]) -> None:
    assert "".join(read(ids)[0]) == decode(ids)


@given(IDS, st.lists(st.text("ab s\n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_text_is_never_shown_and_never_missed(ids: list[int], stop: list[str]) -> None:
    pieces, stopped = read(ids, stop)
    shown, whole = "".join(pieces), decode(ids)
    assert whole.startswith(shown)
    assert not any(text in shown for text in stop)
    if stopped:
        assert any(whole[len(shown) :].startswith(text) for text in stop)
    else:
        assert shown == whole


def test_what_may_begin_a_stop_text_is_held_back_until_it_is_decided() -> None:
    reader = TextReader(decode, ["abb"])
    assert [reader.read(0), reader.read(1), reader.read(0)] == ["", "", "ab"]
    assert reader.end() == "a"
    reader = TextReader(decode, ["abb"])
    assert [reader.read(2), reader.read(1)] == ["", ""] and reader.stopped


def test_work_per_token_does_not_grow_with_the_answer() -> None:
    longest = 0

    def measured(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    reader = TextReader(measured)
    for _ in range(500):
        reader.read(2)
    assert longest <= 2
