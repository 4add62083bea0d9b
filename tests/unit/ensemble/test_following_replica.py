"""A replica that follows the ledger never answers from stale stages, even without a scheduler."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from s3t_ray.ensemble import following_replica
from s3t_ray.ensemble.answers import AnswerEvent, Ended, Failed, Piece, Started, Wish
from s3t_ray.ensemble.batching.sampling_params import SamplingParams
from s3t_ray.ensemble.following_replica import Following
from s3t_ray.errors import LedgerError, StoreError
from s3t_ray.ledger.values import StageState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from tests.fakes import Cluster, small_config, write_records
from tests.fakes.serving import LoraWorkers
from tests.tiny import tiny_llama

LAYERS, HIDDEN, PER_GROUP, RANK = 6, 32, 2, 4
WISH = Wish("Name a colour.", SamplingParams(8))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_llama(tmp_path_factory.mktemp("following") / "base", layers=LAYERS, hidden=HIDDEN)


@pytest.fixture
def cluster(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    write_records(tmp_path / "data.jsonl", [(f"r{number}", f"p{number % 9}") for number in range(40)])
    config = small_config(tmp_path, model={"path": str(base)})
    monkeypatch.setattr(following_replica, "FOLLOW_SECONDS", 3600.0)  # only what is asked for happens
    cluster = Cluster(config, workers=lambda run: LoraWorkers(run.store, LAYERS, HIDDEN, PER_GROUP, RANK))
    cluster.settle()
    return cluster


@pytest.fixture
def replica(cluster: Cluster) -> Iterator[Following]:
    made = Following(cluster.run.location.storage_uri, 1)
    yield made
    made.close()


def live(run: Run) -> set[str]:
    return {stage.id for stage in run.ledger.stages(state=StageState.LIVE)}


def serving(run: Run) -> set[str]:
    return {name for shard in range(run.row.shards) for name in view_shard(run, shard).serving}


def in_service(replica: Following) -> set[str]:
    return set(replica._replica._ensemble._service.live.stage_ids)


def test_it_serves_what_the_ledger_says(cluster: Cluster, replica: Following) -> None:
    assert replica.ready().depths == (3, 3)
    answer = replica.complete(WISH)
    assert set(answer.stages) == serving(cluster.run)
    assert answer.prompt_tokens > 8 and answer.tokens == 8


def test_from_the_receipt_on_no_answer_rests_on_a_stale_stage(cluster: Cluster, replica: Following) -> None:
    before = replica.complete(WISH)
    receipt = deletion.accept(cluster.run, ["r3"], [])
    assert set(receipt.stages_pruned) & set(before.stages)
    after = replica.complete(WISH)  # nobody told it
    assert set(after.stages) <= live(cluster.run)
    assert after.version > before.version


class Said:
    """What a replica says of the answers submitted to it, one batch after the other."""

    def __init__(self, replica: Following) -> None:
        self.replica = replica
        self.stages: dict[str, tuple[str, ...]] = {}
        self.text: dict[str, str] = {}
        self.ended: dict[str, AnswerEvent] = {}
        self.restarts: dict[str, int] = {}

    def take(self) -> tuple[tuple[str, AnswerEvent], ...]:
        batch = self.replica.take(60)
        for name, event in batch:
            if isinstance(event, Started):
                self.stages[name], self.text[name] = event.stages, ""
                self.restarts[name] = self.restarts.get(name, -1) + 1
            if isinstance(event, Piece | Ended):
                self.text[name] += event.text
            if isinstance(event, Ended | Failed):
                self.ended[name] = event
        return batch


@pytest.mark.parametrize("whole", [True, False])
def test_an_answer_that_was_complete_before_the_deletion_is_not_handed_out_after_it(
    cluster: Cluster, replica: Following, whole: bool
) -> None:
    replica.submit("q", Wish("Name a colour.", SamplingParams(8), whole=whole))
    pause = threading.Event()
    while replica._replica.load:
        pause.wait(0.01)  # it is complete, and lies in the outbox
    receipt = deletion.accept(cluster.run, ["r3"], [])
    said = Said(replica)
    while "q" not in said.ended:
        for name, event in said.take():
            assert set(said.stages[name]) <= live(cluster.run), event
    assert set(receipt.stages_pruned).isdisjoint(said.stages["q"])
    assert said.text["q"] == replica.complete(WISH).text


def test_the_base_answers_beside_what_is_live_and_is_untouched_by_a_deletion(
    cluster: Cluster, replica: Following
) -> None:
    base, answer = replica.beside_base("Name a colour.", 8)
    assert answer.stages and base != answer.text
    assert answer.text == replica.complete(Wish("Name a colour.", SamplingParams(8))).text
    alone = replica.complete(Wish("Name a colour.", SamplingParams(8), of_base=True))
    assert (alone.text, alone.stages) == (base, ())
    deletion.accept(cluster.run, ["r3"], [])
    again, shorter = replica.beside_base("Name a colour.", 8)
    assert again == base and set(shorter.stages) <= live(cluster.run)


@pytest.mark.parametrize("strike", [1, 2, 3, 5])
def test_wherever_a_deletion_strikes_streams_they_end_on_live_stages(
    cluster: Cluster, replica: Following, strike: int
) -> None:
    for number in range(3):
        replica.submit(f"q{number}", Wish("Name a colour.", SamplingParams(40, seed=number), whole=False))
    said = Said(replica)
    batches = 0
    while len(said.ended) < 3:
        if batches == strike:
            deletion.accept(cluster.run, ["r3"], [])
        batches += 1
        for name, _ in said.take():
            assert set(said.stages[name]) <= live(cluster.run), "not one more piece of the old answer"
    assert all(isinstance(event, Ended) and event.tokens for event in said.ended.values())
    whole = replica.complete(Wish("Name a colour.", SamplingParams(40)))
    assert all(said.text[name] == whole.text for name, stages in said.stages.items() if stages == whole.stages)


def test_when_the_ledger_cannot_be_read_nothing_is_answered(
    cluster: Cluster, replica: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise LedgerError("the ledger refused", "check it")

    monkeypatch.setattr(replica._run.ledger, "events", refuse)
    with pytest.raises(LedgerError):
        replica.complete(WISH)
    replica.submit("q", WISH)
    ((name, event),) = replica.take(60)
    assert name == "q" and isinstance(event, Failed) and isinstance(event.error, LedgerError)
    with pytest.raises(LedgerError):
        replica.ready()
    assert replica.set_live(5, {}) == 5, "it answers nothing, so it has nothing to take back"
    replica.is_up()


def test_the_schedulers_word_prunes_at_once_and_what_heals_is_loaded(cluster: Cluster, replica: Following) -> None:
    deletion.accept(cluster.run, ["r3"], [])
    assert replica.set_live(12345, {}) == 12345
    assert in_service(replica) <= live(cluster.run)
    cluster.settle()
    assert replica.load()
    assert replica.ready().depths == (3, 3)
    assert set(replica.complete(WISH).stages) == serving(cluster.run)


def test_a_damaged_new_stage_leaves_the_rest_in_service(cluster: Cluster, replica: Following) -> None:
    deletion.accept(cluster.run, ["r3"], [])
    replica.ready()
    cluster.settle()
    fresh = serving(cluster.run) - in_service(replica)
    for name in fresh:
        cluster.run.store.write_bytes(f"stages/{name}/adapter_model.safetensors", b"damaged")
    with pytest.raises(StoreError, match="is damaged"):
        replica.set_live(1, {})  # so the scheduler hears of it
    assert set(replica.complete(WISH).stages) <= live(cluster.run) - fresh


def test_a_larger_budget_is_followed(cluster: Cluster, replica: Following, tmp_path: Path) -> None:
    larger = Run.create(cluster.run.config.model_copy(update={"budget": 3}))
    larger.close()
    replica._wake.set()
    pause = threading.Event()
    for _ in range(600):
        if replica._run.config.budget == 3:
            break
        pause.wait(0.05)
    assert replica._run.config.budget == 3
    assert replica.load()


def test_a_cancelled_answer_is_heard_of_no_more(replica: Following) -> None:
    replica.submit("q", Wish("Name a colour.", SamplingParams(200), whole=False))
    assert {name for name, _ in replica.take(60)} == {"q"}
    replica.cancel("q")
    replica.cancel("never asked")
    replica.submit("next", WISH)
    said = Said(replica)
    while "next" not in said.ended:
        assert {name for name, _ in said.take()} <= {"next"}


def test_an_answer_that_is_cancelled_while_its_prompt_is_read_is_not_generated(
    replica: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = replica._replica.request
    ended: list[str] = []
    end = replica._replica.cancel

    def cancelled_meanwhile(wish: Wish) -> Any:
        replica.cancel("q")
        ended.clear()
        return read(wish)

    def counted(name: str) -> None:
        ended.append(name)
        end(name)

    monkeypatch.setattr(replica._replica, "request", cancelled_meanwhile)
    monkeypatch.setattr(replica._replica, "cancel", counted)
    replica.submit("q", Wish("Name a colour.", SamplingParams(200)))
    assert ended == ["q"], "nobody else would end it"


def test_one_look_at_the_ledger_serves_all_streams(
    cluster: Cluster, replica: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    events = replica._run.ledger.events

    def counted(*args: Any, **named: Any) -> Any:
        nonlocal looks
        looks += 1
        return events(*args, **named)

    monkeypatch.setattr(replica._run.ledger, "events", counted)
    for number in range(8):
        replica.submit(f"q{number}", Wish("Name a colour.", SamplingParams(20, seed=number), whole=False))
    said, batches = Said(replica), 0
    while len(said.ended) < 8:
        said.take()
        batches += 1
    assert looks == batches, "not one per stream, nor per token"
