"""Ids of options and files, verbatim."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.cli.named_ids import named_ids, parse_ids, unique
from s3t_ray.errors import DataError


def test_only_line_endings_are_cut() -> None:
    assert parse_ids(b"a b\r\n  c \nd\te\n", "f") == ["a b", "  c ", "d\te"]


def test_blank_lines_and_a_byte_order_mark_are_ignored() -> None:
    assert parse_ids("\ufefffirst\n\n   \nsecond".encode(), "f") == ["first", "second"]


def test_only_newlines_separate_ids() -> None:
    assert parse_ids("a\u2028b\x0bc\n".encode(), "f") == ["a\u2028b\x0bc"]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])).filter(str.strip)))
def test_any_id_without_a_newline_survives(ids: list[str]) -> None:
    ids = [name for name in ids if not name.startswith("\ufeff")]
    assert parse_ids("\n".join(ids).encode(), "f") == ids


def test_duplicates_of_options_and_files_are_merged_in_order(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("2\n1\n3\n2\n")
    assert named_ids(["1"], [str(file)]) == ("1", "2", "3")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt does not exist"):
        named_ids([], [str(tmp_path / "gone.txt")])


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        named_ids([], [str(tmp_path)])


def test_a_file_that_is_not_utf8_names_its_line() -> None:
    with pytest.raises(DataError, match="expired, line 2: not UTF-8"):
        parse_ids(b"good\nb\xe9d\n", "expired")


def test_a_file_without_ids_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("\n\n")
    with pytest.raises(DataError, match="names no record"):
        named_ids(["1"], [str(file)])


def test_an_option_that_was_not_utf8_is_refused() -> None:
    with pytest.raises(DataError, match="not valid UTF-8"):
        unique(["fine", "b\udce9d"])
