"""Other spellings of a name are listed before and after a deletion, and never deleted unasked."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.errors import UnknownRecords
from s3t_ray.run.deletion import accept, preview
from s3t_ray.run.run import Run
from s3t_ray.run.spellings import spellings
from tests.fakes import Cluster, fake_base, small_config, write_records

ANN = ("Ann@Example.org", "ann@example.org ", "ANN@EXAMPLE.ORG")
JOSE = unicodedata.normalize("NFC", "josé"), unicodedata.normalize("NFD", "josé")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    fake_base(tmp_path / "base")
    people = [("r0", "ann@example.org"), *((f"r{at}", name) for at, name in enumerate(ANN, start=1))]
    write_records(tmp_path / "data.jsonl", [*people, ("R1 ", JOSE[0]), ("r9", JOSE[1])])
    return Cluster(small_config(tmp_path)).run


def test_they_are_listed_and_stay(run: Run) -> None:
    impact = preview(run, [], ["ann@example.org"])
    assert impact.records == 1
    assert {(each.spelling, each.records) for each in impact.other_spellings} == {(name, 1) for name in ANN}
    receipt = accept(run, ["r1"], ["ann@example.org", JOSE[0]])
    told = {(each.kind, each.named, each.spelling) for each in receipt.other_spellings}
    rest = {name for name in ANN if name != ANN[0]}  # r1 was Ann's, and named
    assert told == {("subject", "ann@example.org", name) for name in rest} | {("subject", JOSE[0], JOSE[1])}
    assert receipt.records == 3, "record 'R1 ' was of the person named"


def test_an_unknown_name_says_what_is_like_it(run: Run) -> None:
    with pytest.raises(UnknownRecords, match="other spellings: id 'r9'"):
        accept(run, ["R9"], [])
    assert preview(run, ["nobody"], []).other_spellings == ()


@given(st.text(max_size=30))
def test_no_spelling_is_the_name_itself_or_comes_twice(name: str) -> None:
    made = list(spellings(name))
    assert name not in made and len(set(made)) == len(made) <= 1024


def test_a_deletion_is_found_by_the_beginning_of_its_id(run: Run) -> None:
    request = accept(run, ["r0"], []).request_id
    assert run.request_named(request[:12]) == request
    assert run.request_named(request[:3]) == request[:3], "too short to go by"
