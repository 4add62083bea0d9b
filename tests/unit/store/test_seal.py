"""Seals: only the key's holder can make one, and anything else is refused."""

from __future__ import annotations

import pytest

from s3t_ray.store.seal import Sealed, is_sealed_with, seal

KEY, OTHER = "1" * 64, "2" * 64


class Said(Sealed):
    text: str


def test_a_seal_holds_for_its_key_and_its_words_alone() -> None:
    sealed = seal(Said(text="a"), KEY)
    assert is_sealed_with(sealed, KEY)
    assert not is_sealed_with(sealed, OTHER)
    assert not is_sealed_with(sealed.model_copy(update={"text": "b"}), KEY)


@pytest.mark.parametrize("text", ["null", '""', '"0"', '"\u00e9"', '"\u0661"'])
def test_what_stands_in_the_place_of_a_seal(text: str) -> None:
    assert not is_sealed_with(Said.model_validate_json(f'{{"text":"a","seal":{text}}}'), KEY)
