"""Pairs of texts, classes and values: rows into records, records and prompts into tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.inputs import encode, encode_prompt
from s3t_ray.data.readers.read import read_holdout, read_records
from s3t_ray.data.records import normalise
from s3t_ray.data.row_fields import MalformedRow
from s3t_ray.data.task_records import task_records
from s3t_ray.errors import DataError
from tests.unit.data.conftest import MakeTokenizer

DATA = Data(path="x")
NLI = Task(kind="classification", labels=("yes", "no"), text="{premise}", pair="{hypothesis}")
WORDS = Task(kind="regression", text="{word}: {sentence}")
ROW = {"id": 1, "premise": "It {rains}.", "hypothesis": "It is wet.", "label": 1, "other": 5}


def content(row: dict[str, object], task: Task) -> dict[str, object]:
    read: dict[str, object] = json.loads(normalise(row, DATA, task_records(task)).content)
    return read


def test_a_pair_with_the_name_of_its_class() -> None:
    assert content(ROW, NLI) == {"text": "It {rains}.", "pair": "It is wet.", "label": "no"}


def test_a_value_is_one_number_whatever_its_spelling() -> None:
    row = {"id": 1, "word": "bank", "sentence": "A bank.", "label": 5}
    assert normalise(row, DATA, task_records(WORDS)).content == '{"label":5.0,"text":"bank: A bank."}'
    assert normalise({**row, "label": 5.0}, DATA, task_records(WORDS)) == normalise(row, DATA, task_records(WORDS))


@pytest.mark.parametrize(
    ("row", "task", "reason"),
    [
        ({**ROW, "hypothesis": None}, NLI, "field 'hypothesis' is null"),
        ({"id": 1, "premise": "a", "label": 0}, NLI, "field 'hypothesis' is missing"),
        ({**ROW, "label": -1}, NLI, r"outside 0\.\.1"),  # how hubs mark a test set without labels
        ({"id": 1, "word": "a", "sentence": "b"}, WORDS, "field 'label' is missing"),
        ({"id": 1, "word": "a", "sentence": "b", "label": "5"}, WORDS, "field 'label' is text, not a number"),
        ({"id": 1, "word": "a", "sentence": "b", "label": True}, WORDS, "true or false, not a number"),
        ({"id": 1, "word": "a", "sentence": "b", "label": float("nan")}, WORDS, "not a finite number"),
        ({"id": 1, "word": "a", "sentence": "b", "label": 10**400}, WORDS, "too large"),
    ],
)
def test_malformed(row: dict[str, object], task: Task, reason: str) -> None:
    with pytest.raises(MalformedRow, match=reason):
        content(row, task)


def test_tokens_of_a_pair(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    example = encode('{"label":"no","pair":"It is wet.","text":"It rains."}', tokenizer, NLI)
    theirs = tokenizer("It rains.", text_pair="It is wet.", return_token_type_ids=True)
    assert (list(example.input_ids), list(example.token_types)) == (theirs["input_ids"], theirs["token_type_ids"])
    assert set(example.token_types) == {0, 1} and (example.label, example.learned) == (1, 1)
    short = encode(
        '{"label":"no","pair":"wet","text":"It rains and rains."}', tokenizer, NLI.model_copy(update={"max_tokens": 7})
    )
    assert len(short.input_ids) == len(short.token_types) == 7
    assert short.token_types.count(1) == len(tokenizer("wet", add_special_tokens=False)["input_ids"])
    assert encode('{"label":0.5,"text":"one text"}', tokenizer, WORDS).token_types == ()


def test_a_prompt_is_read_as_a_record_with_these_fields(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    trained = encode('{"label":"no","pair":"It is wet.","text":"It {rains}."}', tokenizer, NLI)
    asked = encode_prompt(json.dumps(ROW), tokenizer, NLI)
    assert (asked.input_ids, asked.token_types, asked.label) == (trained.input_ids, trained.token_types, None)
    single = Task(kind="classification", labels=("a", "b"), text="{sentence}")
    plain = encode_prompt('{"not": "parsed"}', tokenizer, single)
    assert plain.input_ids == encode('{"label":"a","text":"{\\"not\\": \\"parsed\\"}"}', tokenizer, single).input_ids
    for prompt in ("no JSON", "[1]", '{"premise": "a"}'):
        with pytest.raises(DataError, match=r'send \{"premise": "\.\.\.", "hypothesis": "\.\.\."\}'):
            encode_prompt(prompt, tokenizer, NLI)
    with pytest.raises(DataError, match="not chat messages"):
        encode_prompt([{"role": "user", "content": "a"}], tokenizer, NLI)


def test_a_held_out_split_has_ids_of_its_own(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = {"idx": [0, 1], "sentence": ["a", "b"], "label": [0, 1]}
    held = {"idx": [0], "sentence": ["c"], "label": [1]}
    DatasetDict({"train": Dataset.from_dict(rows), "dev": Dataset.from_dict(held)}).save_to_disk(str(tmp_path / "set"))
    data = Data(path=str(tmp_path / "set"), id_field="idx", holdout_split="dev")
    task = Task(kind="classification", labels=("bad", "good"), text="{sentence}")
    assert [record.id for record in read_records(data, task)] == ["0", "1"]
    (record,) = read_holdout(data, task)
    assert (record.id, record.content) == ("dev:0", '{"label":"good","text":"c"}')


def test_files_have_no_splits_to_hold_out(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "text": "a", "label": 0.5}\n')
    data = Data(path=str(tmp_path / "rows.jsonl"), holdout_split="validation")
    with pytest.raises(DataError, match="has no splits"):
        next(iter(read_holdout(data, Task(kind="regression"))))
