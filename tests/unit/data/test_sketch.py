"""Sketches estimate how alike two contents are, see no order of fields, and are keyed."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.data.minhash import Sketcher
from s3t_ray.data.shingles import text_shingles
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.minhash_index import likeness

KEYS = Keys(b"k" * 32)
WORDS = [f"word{number}" for number in range(400)]


def sketcher(permutations: int = 64, keys: Keys = KEYS) -> Sketcher:
    return Sketcher(permutations, 5, keys.shingle_hash)


def text(words: list[str]) -> str:
    return json.dumps({"text": " ".join(words)})


def jaccard(one: str, other: str) -> float:
    first, second = set(text_shingles(json.loads(one), 5)), set(text_shingles(json.loads(other), 5))
    return len(first & second) / len(first | second)


def test_the_estimate_is_near_the_true_likeness() -> None:
    dice = random.Random(4)
    made = sketcher(256)
    errors = []
    for changes in (0, 1, 2, 5, 10, 20, 60):
        words = dice.sample(WORDS, 200)
        changed = list(words)
        for place in dice.sample(range(200), changes):
            changed[place] = "other"
        estimate = likeness([made.sketch(text(words))], [made.sketch(text(changed))])[0, 0]
        errors.append(abs(estimate - jaccard(text(words), text(changed))))
    assert errors[0] == 0
    assert max(errors) < 4 * 0.5 / 256**0.5


def test_unlike_contents_look_unlike() -> None:
    made = sketcher()
    own = made.sketch(text(WORDS[:100]))
    assert len(own) == 64
    assert abs(likeness([own], [made.sketch(text(WORDS[200:300]))])[0, 0]) < 0.1


def test_another_key_gives_another_signature() -> None:
    own, other = sketcher().sketch(text(WORDS)), sketcher(keys=Keys(b"z" * 32)).sketch(text(WORDS))
    assert likeness([own], [other])[0, 0] < 0.1
    assert sketcher().sketch(text(WORDS)) == own


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"text": "One, TWO! three-four"}, ["one two", "two three", "three four"]),
        ({"text": "lone"}, ["lone"]),
        ({"text": "?!"}, [""]),
        ({"text": "same", "label": "spam"}, ["same"]),
        ({"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]}, ["a b", "b c"]),
        ({"text": "日本語abc"}, ["日 本", "本 語", "語 abc"]),
        ({"text": "a b a b"}, ["a b", "b a"]),
    ],
)
def test_shingles(content: dict[str, object], expected: list[str]) -> None:
    assert [shingle.decode() for shingle in text_shingles(content, 2)] == expected


@given(st.dictionaries(st.sampled_from(["instruction", "input", "output", "text"]), st.text(max_size=30), min_size=1))
def test_any_content_has_a_signature(content: dict[str, str]) -> None:
    assert len(sketcher(16).sketch(json.dumps(content))) == 16
