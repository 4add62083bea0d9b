"""The sliding window over an array sees what a whole parse sees."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.data.readers import json_array
from s3t_ray.data.readers.json_array import BrokenArray, array_items

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 1]), st.integers(1, 40))
def test_same_as_a_whole_parse_whatever_the_window(items: list[object], indent: int | None, window: int) -> None:
    text = json.dumps(items, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "WINDOW", window)
        assert list(array_items(io.StringIO(f" \n{text}\n"))) == items


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with"),
        ("{}", "does not begin with"),
        ("[1, 2", "element 2 is not JSON: it is truncated"),
        ('["a"', "neither a comma nor ] after element 1"),
        ("[1 2]", "neither a comma nor ] after element 1"),
        ("[1,]", "element 2 is not JSON"),
        ('[{"a": 1}, {"b": ]', "element 2 is not JSON"),
        ("[1] 2", "text follows"),
        ("[" * 100_000, "element 1 is nested too deeply"),
    ],
)
def test_broken(text: str, reason: str) -> None:
    with pytest.raises(BrokenArray, match=reason):
        list(array_items(io.StringIO(text)))


def test_a_missing_quote_does_not_read_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "WINDOW", 100)
    monkeypatch.setattr(json_array, "LONGEST", 1000)
    file = io.StringIO('["' + "x" * 100_000 + '"]')
    with pytest.raises(BrokenArray, match="element 1 is not JSON"):
        list(array_items(file))
    assert file.tell() < 5000
