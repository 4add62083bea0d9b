"""The replica: prompts in the training template, text out, one consistent answer under threads and prunes."""

from __future__ import annotations

import json
import pickle
import threading

import pytest

from s3t_ray.config.load import dump_config
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.inputs import encode, encode_prompt
from s3t_ray.ensemble.answers import Ended, Piece, Started
from s3t_ray.ensemble.replica import Replica
from s3t_ray.errors import ConfigError
from tests.unit.ensemble.conftest import Published


@pytest.fixture(scope="module")
def replica(published: Published) -> Replica:
    return Replica(dump_config(published.config), str(published.base), published.store.uri)


def test_ready_says_what_is_in_service(published: Published) -> None:
    replica = Replica(dump_config(published.config), str(published.base), published.store.uri)
    assert replica.ready().depths == (0, 0)
    assert replica.set_live(3, published.chains(2, 1)) == 3
    assert replica.ready().version == 3
    assert replica.ready().depths == (2, 1)


def test_the_prompt_is_put_in_the_training_template(replica: Replica, published: Published) -> None:
    ensemble = published.ensemble()
    version = replica.ready().version + 1
    replica.set_live(version, published.chains(3, 3))
    ensemble.set_live(version, published.chains(3, 3))
    answer = replica.generate("Name a colour.", 8)
    ids = list(encode_prompt("Name a colour.", replica._tokenizer, published.config.task).input_ids)
    made = ensemble.generate(ids, 8, eos=[replica._tokenizer.eos_token_id])
    assert answer.text == replica._tokenizer.decode(made.tokens, skip_special_tokens=True)
    assert (answer.version, answer.depths, answer.tokens) == (version, (3, 3), len(made.tokens))
    assert answer.seconds > 0
    assert replica.generate([{"role": "user", "content": "Name a colour."}], 8).text == answer.text
    assert pickle.loads(pickle.dumps(answer)) == answer  # it travels between processes


def test_pieces_of_a_stream_make_the_answer(replica: Replica, published: Published) -> None:
    """Also when a character comes in several tokens, as here, where most tokens are single bytes."""
    replica.set_live(replica.ready().version + 1, published.chains(3, 1))
    for seed in range(5):
        answer = replica.generate("Say it.", 24, temperature=2.0, seed=seed)
        events = list(replica.stream("Say it.", 24, temperature=2.0, seed=seed))
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Ended) and events[-1].finish is answer.finish
        assert "".join(event.text for event in events if isinstance(event, Piece | Ended)) == answer.text


def test_the_tokenizers_end_of_sequence_ends_an_answer(replica: Replica) -> None:
    assert replica._tokenizer.eos_token_id in replica._eos


def test_evaluate_reads_records_as_training_does(replica: Replica, published: Published) -> None:
    ensemble = published.ensemble()
    version = replica.ready().version + 1
    replica.set_live(version, published.chains(1, 3))
    ensemble.set_live(version, published.chains(1, 3))
    record = json.dumps({"instruction": "Add.", "input": "1 and 2", "output": "3"})
    too_long = json.dumps({"instruction": "word " * 600, "input": "", "output": "never seen"})
    report = replica.evaluate([record, too_long], [0, 1])
    assert (report.records, report.skipped) == (1, 1)
    example = encode(record, replica._tokenizer, published.config.task)
    assert report.current == ensemble.held_out_losses([example], [0, 1]).current


def test_answers_stay_whole_while_the_live_set_changes(replica: Replica, published: Published) -> None:
    """Threads ask while stages come and go: each answer is that of one live set, and of one that was not gone
    when the question was asked."""
    start = replica.ready().version
    sets = [(3, 3), (1, 3), (1, 0), (2, 2), (0, 0), (3, 1)]
    right: dict[tuple[int, ...], str] = {}
    for version, depths in enumerate(sets, start=start + 1):
        replica.set_live(version, published.chains(*depths))
        right[depths] = replica.generate("Go.", 6).text
    assert len(set(right.values())) == len(sets)
    first = start + len(sets) + 1
    stop = threading.Event()
    problems: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            confirmed = replica.ready()
            answer = replica.generate("Go.", 6)
            if answer.text != right[answer.depths]:
                problems.append(f"{answer.depths} answered {answer.text!r}")
            if answer.version < confirmed.version:
                problems.append(f"version {answer.version} answered after {confirmed.version}")

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for turn in range(30):
        depths = sets[turn % len(sets)]
        assert replica.set_live(first + turn, published.chains(*depths)) == first + turn
        assert replica.ready().depths == depths
    stop.set()
    for asker in askers:
        asker.join(60)
    assert problems == []


def test_a_config_that_does_not_fit_the_base_is_refused(published: Published) -> None:
    wrong = Config.model_validate(
        published.config.model_dump() | {"task": {"kind": "classification", "labels": ["a", "b"]}}
    )
    with pytest.raises(ConfigError, match="classification does not fit"):
        Replica(dump_config(wrong), str(published.base), published.store.uri)
