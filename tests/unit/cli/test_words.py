"""Human-readable numbers and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.cli.show import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0.0 s"),
        (0.34, "0.3 s"),
        (42.2, "42 s"),
        (59.7, "1 min"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (86400 * 4 + 3 * 3600, "4 d 3 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (26 * 2**30, "26.0 GiB"), (3 * 2**50, "3.0 PiB")]
)
def test_sizes_are_binary_and_say_so(size: float, text: str) -> None:
    assert units.size(size) == text


def test_large_numbers_keep_three_digits() -> None:
    assert units.large(9_464_364, "tokens") == "9.46 M tokens"
    assert units.large(950, "tokens") == "950 tokens"
    assert units.flops(2.1e18) == "2.1 EFLOP"
    assert units.flops(12) == "12 FLOP"


def test_an_order_of_many_slices_keeps_both_ends() -> None:
    assert units.order((2, 0, 1)) == "2→0→1"
    assert units.order(range(64), ">") == "0>1>2>..>63"


def test_names_beyond_the_limit_are_counted() -> None:
    assert units.listed(["a", "b"]) == "a, b"
    assert units.listed([str(n) for n in range(25)], most=2) == "0, 1 and 23 more"


def test_control_characters_cannot_drive_the_terminal() -> None:
    assert units.printable("id\x1b[31m\x07") == "id\\x1b[31m\\x07"
    assert units.printable("naïve → 好") == "naïve → 好"


@given(st.text(st.characters()))
def test_printable_text_always_encodes(text: str) -> None:
    units.printable(text).encode()
