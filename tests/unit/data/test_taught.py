"""Records without labelled tokens are counted, and a shard that would learn nothing is refused."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from s3t_ray.data.partition import HOLDOUT, Place
from s3t_ray.data.record_check import RecordCheck
from s3t_ray.data.records import Record, canonical
from s3t_ray.data.taught import Taught
from s3t_ray.errors import DataError
from tests.tokenizers import tokenizer_of
from tests.unit.data.conftest import build_config


def counted(records: Iterable[tuple[Place, bool]]) -> Taught:
    taught = Taught(build_config())
    placed = [(spot, Record(str(at), None, "{}", teaches)) for at, (spot, teaches) in enumerate(records)]
    assert list(taught.count(placed)) == placed
    return taught


def test_half_of_the_records_too_long_is_said() -> None:
    taught = counted((Place(shard, 0), at % 2 == 0) for shard in range(3) for at in range(4))
    assert (taught.records, taught.nothing) == (12, 6)
    notes: list[str] = []
    taught.tell(notes.append)
    assert any("6 of 12 records teach nothing: no response within task.max_tokens" in note for note in notes)


def test_a_shard_that_would_learn_nothing_is_refused() -> None:
    taught = counted(
        [(Place(0, 0), True), (Place(1, 0), False), (Place(1, 2), False), (Place(2, 0), True), (HOLDOUT, False)]
    )
    with pytest.raises(DataError, match="shard 1 would learn nothing: its records") as caught:
        taught.check_shards()
    assert "raise task.max_tokens" in caught.value.fix
    with pytest.raises(DataError, match="nothing would be learned: all 3 records"):
        counted((Place(shard, 0), False) for shard in range(3)).tell(lambda line: None)
    assert (taught.records, taught.nothing) == (4, 2), "held-out records are not trained on"


def test_a_shard_without_a_record_is_said() -> None:
    """It is what deletions may leave too, and a training without the deleted records must do the same."""
    taught = counted([(Place(0, 0), True), (Place(2, 1), True)])
    taught.check_shards()
    notes: list[str] = []
    taught.tell(notes.append)
    assert any("10 of 12 slices are empty, including an entire shard" in note for note in notes)


def test_a_run_of_held_out_records_alone_is_refused() -> None:
    with pytest.raises(DataError, match="all 2 are held out") as caught:
        counted([(HOLDOUT, True), (HOLDOUT, True)]).tell(lambda line: None)
    assert "data.holdout" in caught.value.fix


def test_a_prompt_that_fills_the_length_teaches_nothing() -> None:
    task = build_config().task.model_copy(update={"max_tokens": 64})
    check = RecordCheck(tokenizer_of("bpe"), task)
    kept, teaches = check(canonical({"instruction": "Q", "input": "", "output": "A"}))
    long, idle = check(canonical({"instruction": "word " * 100, "input": "", "output": "A"}))
    assert not idle and "word word" in long and kept
    assert not teaches, "Alpaca's headings alone are longer than 64 tokens of this tokenizer"
    plain = RecordCheck(tokenizer_of("bpe"), task.model_copy(update={"prompt": "plain"}))
    assert plain(canonical({"instruction": "Q", "input": "", "output": "A"}))[1]
