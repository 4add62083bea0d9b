"""The size of a config's data: counted as in training, or estimated without a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3t_ray.cli import measure_data as measuring
from s3t_ray.cli.measure_data import EstimatingTokenizer, measure
from s3t_ray.config.load import load_config
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.inputs import NO_LOSS, encode
from s3t_ray.data.records import canonical
from s3t_ray.errors import DataError


def config_of(path: Path, *overrides: str) -> Config:
    return load_config("llama-2-13b", [f"data.path={path}", "data.id_field=id", *overrides])


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(number: int, output: str = "yes " * 40) -> dict[str, object]:
    return {"id": number, "instruction": "Is it?", "input": "", "output": output}


def test_records_are_placed_as_training_places_them(tmp_path: Path) -> None:
    size = measure(config_of(write(tmp_path, [row(n) for n in range(400)]), "data.holdout=0.25"))
    assert size.records + size.held_out == 400
    assert 60 < size.held_out < 140
    assert (size.sampled, size.counted_by, size.set_aside) == (size.records, "characters", 0)


def test_the_estimate_counts_the_template_and_the_end_but_no_loss_on_the_prompt(tmp_path: Path) -> None:
    size = measure(config_of(write(tmp_path, [row(1)]), "data.holdout=0"))
    response = 160 // 4 + 1
    assert round(size.labelled_share * size.tokens_per_record) == response
    prompt = size.tokens_per_record - response
    assert 35 < prompt < 50  # Alpaca's headings and the instruction: 146 characters and the first token


def test_the_estimate_is_cut_like_the_record(tmp_path: Path) -> None:
    path = write(tmp_path, [row(1, "word " * 4000)])
    assert measure(config_of(path, "task.max_tokens=100", "data.holdout=0")).tokens_per_record == 100


def test_a_guess_refuses_no_record_whose_response_it_cannot_see(tmp_path: Path) -> None:
    size = measure(config_of(write(tmp_path, [row(1)]), "task.max_tokens=10", "data.holdout=0"))
    assert (size.tokens_per_record, size.labelled_share) == (10, 0)


def test_malformed_rows_are_counted_or_refused_as_the_config_says(tmp_path: Path) -> None:
    path = write(tmp_path, [row(1), {"id": 2}])
    assert measure(config_of(path, "data.on_malformed=set_aside", "data.holdout=0")).set_aside == 1
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        measure(config_of(path, "data.on_malformed=refuse"))


def test_a_large_input_is_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SAMPLE_RECORDS", 100)
    rows = [row(n, "a" * (40 if n < 1000 else 440)) for n in range(2000)]
    size = measure(config_of(write(tmp_path, rows), "data.holdout=0"))
    short = measure(config_of(write(tmp_path, rows[:1000]), "data.holdout=0")).tokens_per_record
    assert size.sampled == 100
    assert 25 < size.tokens_per_record - short < 75  # half of the records have 100 tokens more


def test_chat_and_classification_can_be_estimated_too() -> None:
    config = load_config("llama-2-13b", ["task.prompt=chat_template"])
    turns = [{"role": "user", "content": "a" * 40}, {"role": "assistant", "content": "b" * 80}] * 2
    chat = encode(canonical({"messages": turns}), EstimatingTokenizer(), config.task)
    learned = sum(label != NO_LOSS for label in chat.labels)
    assert 40 <= learned < 50
    assert 60 <= len(chat.input_ids) < 80
    task = config.task.model_copy(update={"kind": "classification", "labels": ("no", "yes"), "max_tokens": 20})
    classified = encode(canonical({"text": "a" * 400, "label": "yes"}), EstimatingTokenizer(), task)
    assert (len(classified.input_ids), classified.label) == (20, 1)
