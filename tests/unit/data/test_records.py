"""Rows become records, or are refused with a reason that names no value."""

from __future__ import annotations

import json

import pytest

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.records import Record, derive_id, normalise
from s3t_ray.data.row_fields import MalformedRow
from s3t_ray.data.task_records import TaskRecords, task_records

DATA = Data(path="x")
TEXT = task_records(Task())
CHAT = task_records(Task(prompt="chat_template"))
CLASSES = task_records(Task(kind="classification", labels=("bad", "good")))
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]


def test_an_instruction() -> None:
    row = {"id": "a", "output": "O ü", "instruction": "I", "other": 5}
    assert normalise(row, DATA, TEXT) == Record("a", None, '{"input":"","instruction":"I","output":"O ü"}')
    for empty in (None, "", "  \n"):
        assert normalise({**row, "input": empty}, DATA, TEXT) == normalise(row, DATA, TEXT)


def test_the_prompt_decides_which_form_of_a_record_counts() -> None:
    row = {"id": 1, "instruction": "I", "output": "O", "text": "I O", "messages": TURNS}
    assert "instruction" in normalise(row, DATA, TEXT).content
    assert json.loads(normalise(row, DATA, CHAT).content) == {"messages": TURNS}
    assert json.loads(normalise({"id": 1, "text": "T"}, DATA, CHAT).content) == {"text": "T"}


def test_classes_by_name_or_by_number() -> None:
    expected = '{"label":"good","text":"T"}'
    assert normalise({"id": "a", "text": "T", "label": "good"}, DATA, CLASSES).content == expected
    assert normalise({"id": "a", "text": "T", "label": 1}, DATA, CLASSES).content == expected


def test_ids_and_subjects() -> None:
    data = Data(path="x", id_field="key", subject_field="who")
    row = {"key": 7, "who": 12, "text": "T"}
    assert normalise(row, data, TEXT) == Record("7", "12", '{"text":"T"}')
    assert normalise({**row, "who": None}, data, TEXT).subject is None


def test_derived_ids_follow_the_content_alone() -> None:
    data = Data(path="x", id_field=None)
    one, same = ({"text": "T", "at": at} for at in (1, 2))
    assert normalise(one, data, TEXT).id == normalise(same, data, TEXT).id == derive_id('{"text":"T"}')
    assert normalise({"text": "t"}, data, TEXT).id != derive_id('{"text":"T"}')


@pytest.mark.parametrize(
    ("row", "task", "reason"),
    [
        ({"id": "a"}, TEXT, "no instruction and output"),
        ({"id": "a", "text": None}, TEXT, "null: text"),
        ({"id": "a", "instruction": "I"}, TEXT, "field 'output' is missing"),
        ({"id": "a", "instruction": "I", "output": " "}, TEXT, "field 'output' is empty"),
        ({"id": "a", "instruction": "I", "output": 5}, TEXT, "field 'output' is a number, not text"),
        ({"id": "a", "instruction": "I", "input": ["x"], "output": "O"}, TEXT, "field 'input' is a list"),
        ({"text": "T"}, TEXT, r"field 'id' \(data.id_field\) is missing"),
        ({"id": None, "text": "T"}, TEXT, "null, not text or a whole number"),
        ({"id": True, "text": "T"}, TEXT, "true or false, not text"),
        ({"id": 1.5, "text": "T"}, TEXT, "a floating-point number, not text or a whole"),
        ({"id": "", "text": "T"}, TEXT, "is empty"),
        ({"id": "a", "text": "half \ud800"}, TEXT, "half a surrogate pair"),
        ({"id": "\udc00", "text": "T"}, TEXT, "half a surrogate pair"),
        ({"id": "a", "messages": TURNS}, TEXT, "chat_template"),
        ({"id": "a", "messages": "hi"}, CHAT, "messages is text"),
        ({"id": "a", "messages": []}, CHAT, "messages is empty"),
        ({"id": "a", "messages": ["hi"]}, CHAT, "message 1 is text"),
        ({"id": "a", "messages": [{"role": "user"}]}, CHAT, "message 1: field 'content' is missing"),
        ({"id": "a", "messages": [{"role": "boss", "content": "x"}]}, CHAT, "message 1: role is not one of"),
        ({"id": "a", "messages": TURNS[:1]}, CHAT, "no message has the role assistant"),
        ({"id": "a", "messages": TURNS[1:]}, CHAT, "no question before it"),
        ({"id": "a", "text": "T", "label": 2}, CLASSES, r"outside 0\.\.1"),
        ({"id": "a", "text": "T", "label": "ugly"}, CLASSES, r"not one of task.labels \(bad, good\)"),
        ({"id": "a", "text": "T", "label": True}, CLASSES, "field 'label' is true or false"),
        ({"id": "a", "label": "good"}, CLASSES, "field 'text' is missing"),
    ],
)
def test_malformed(row: dict[str, object], task: TaskRecords, reason: str) -> None:
    with pytest.raises(MalformedRow, match=reason):
        normalise(row, DATA, task)


def test_a_reason_never_tells_a_value() -> None:
    secret = "Ada Lovelace"
    for row in ({"id": secret, "instruction": secret, "output": [secret]}, {"id": [secret], "text": secret}):
        with pytest.raises(MalformedRow) as caught:
            normalise(row, DATA, TEXT)
        assert secret not in str(caught.value)


def test_a_row_without_its_subject_field_is_refused() -> None:
    with pytest.raises(MalformedRow, match=r"field 'who' \(data.subject_field\) is missing"):
        normalise({"id": "a", "text": "T"}, Data(path="x", subject_field="who"), TEXT)
