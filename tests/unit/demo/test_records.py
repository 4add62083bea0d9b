"""The demo's data set: real docstrings, stable, and in the format that the data room reads."""

from __future__ import annotations

import inspect
import json
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.read import read_records
from s3t_ray.demo.authors import AUTHORS
from s3t_ray.demo.docstrings import (
    LONGEST,
    RECORDS_PER_PERSON,
    SHORTEST,
    DemoData,
    _write_jsonl,
    docstrings,
    opening_prose,
    source_path,
    write_demo_data,
)
from s3t_ray.errors import DataError, StoreError

SENTENCE = "Return the number of bytes that the archive would take if it were written without padding."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DemoData:
    return write_demo_data(tmp_path_factory.mktemp("demo"))


def test_the_set_has_the_size_that_the_demo_counts_on(data: DemoData) -> None:
    assert len(data.people) >= len(AUTHORS) - 2
    assert 95 <= len(data.records) <= RECORDS_PER_PERSON * len(AUTHORS)
    assert len(data.holdout) >= 14
    each = Counter(record.subject for record in data.records)
    assert set(each) == set(data.people)
    assert max(each.values()) == RECORDS_PER_PERSON
    assert min(each.values()) >= 2


def test_records_are_distinct_short_and_without_mail_addresses(data: DemoData) -> None:
    everything = [*data.records, *data.holdout]
    assert len({record.id for record in everything}) == len(everything)
    assert len({record.output for record in everything}) == len(everything)
    for record in everything:
        assert SHORTEST <= len(record.output) <= LONGEST
        assert record.instruction == f"Explain `{record.id}` from Python's standard library."
        assert record.input == ""
        assert record.output == " ".join(record.output.split())
        assert "@" not in record.output


def test_outputs_are_the_docstrings_that_python_itself_shows(data: DemoData) -> None:
    import tarfile

    records = data.records_of("Lars Gustäbel")
    assert len(records) == RECORDS_PER_PERSON
    for record in records:
        thing: object = tarfile
        for name in record.id.split(".")[1:]:
            thing = getattr(thing, name)
        shown = " ".join((inspect.getdoc(thing) or "").split())
        assert shown.startswith(record.output)


def test_held_out_records_are_of_nobody(data: DemoData) -> None:
    assert {record.subject for record in data.holdout} == {None}
    assert None not in data.people


def test_writing_again_gives_the_same_bytes(data: DemoData, tmp_path: Path) -> None:
    again = write_demo_data(tmp_path / "new" / "folder")
    assert again.path.read_bytes() == data.path.read_bytes()
    assert again.holdout_path.read_bytes() == data.holdout_path.read_bytes()
    assert sorted(path.name for path in again.path.parent.iterdir()) == ["demo-data.jsonl", "demo-holdout.jsonl"]


def test_the_files_hold_the_records(data: DemoData) -> None:
    rows = [json.loads(line) for line in data.path.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [record.id for record in data.records]
    assert set(rows[0]) == {"id", "instruction", "input", "output", "subject"}


def test_the_data_room_reads_both_files(data: DemoData) -> None:
    settings = Data(path=str(data.path), subject_field="subject", partition_by="subject")
    read = list(read_records(settings, Task(), None))
    assert [(record.id, record.subject) for record in read] == [(record.id, record.subject) for record in data.records]
    held_out = list(read_records(settings.model_copy(update={"path": str(data.holdout_path)}), Task(), None))
    assert [record.id for record in held_out] == [record.id for record in data.holdout]


def test_only_what_is_public_and_prose_is_taken(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text(
        f'''
"""Module docstring, which is not taken although it is long enough to be a record of the demo."""

import a_module_that_is_nowhere

def area():
    """{SENTENCE}"""

def same_text():
    """{SENTENCE}"""

def _hidden():
    """{SENTENCE[:-1]} or not."""

class Shape:
    """Short."""

    async def corners(self):
        """{SENTENCE[:-1]} at all.

        >>> Shape().corners()
        """

    def mail(self):
        """{SENTENCE[:-1]}, and write to someone@example.org about it."""

class _Hidden:
    def method(self):
        """{SENTENCE[:-1]} here."""
''',
        encoding="utf-8",
    )
    assert docstrings("shapes", tmp_path) == {
        "shapes.area": SENTENCE,
        "shapes.Shape.corners": f"{SENTENCE[:-1]} at all.",
    }


@pytest.mark.parametrize(
    ("documentation", "expected"),
    [
        (SENTENCE, SENTENCE),
        (f"{SENTENCE}\n\n    More on\n    it.", f"{SENTENCE} More on it."),
        (f"{SENTENCE}\n\n{SENTENCE} {SENTENCE}", SENTENCE),  # the second paragraph is too long
        (f"{SENTENCE}\n\nArguments: x", SENTENCE),  # a list begins
        (SENTENCE[:-1], None),  # does not end a sentence
        (SENTENCE[:40] + ".", None),  # too short
        (f"{SENTENCE[:-1]} (of which some.", None),  # cut in a parenthesis
        (f"size(path) {SENTENCE}", None),  # a signature line
        ("", None),
    ],
)
def test_opening_prose(documentation: str, expected: str | None) -> None:
    assert opening_prose(documentation) == expected


def test_modules_and_packages_are_found_without_importing() -> None:
    library = Path(sysconfig.get_path("stdlib"))
    assert source_path("tarfile", library) == library / "tarfile.py"
    assert source_path("json", library) == library / "json" / "__init__.py"
    assert source_path("no_such_module", library) is None
    assert docstrings("no_such_module", library) == {}


def test_a_python_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only 0 of the demo's"):
        write_demo_data(tmp_path / "out", library=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write the demo's records"):
        _write_jsonl(tmp_path / "file" / "demo-data.jsonl", ())
