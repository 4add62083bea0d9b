"""A replica that follows the ledger: nothing stale is ever answered, with no scheduler to tell it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from s3t_ray.ensemble import following_replica
from s3t_ray.ensemble.answers import Ended, Piece, Started, Wish
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
WISH = Wish("Name a colour.", 8, 0.0, 1.0, 0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_llama(tmp_path_factory.mktemp("following") / "base", layers=LAYERS, hidden=HIDDEN)


@pytest.fixture
def cluster(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    write_records(tmp_path / "data.jsonl", [(f"r{number}", f"p{number % 9}") for number in range(40)])
    config = small_config(tmp_path, model={"path": str(base)})
    monkeypatch.setattr(following_replica, "FOLLOW_SECONDS", 3600.0)  # only what is asked for happens
    cluster = Cluster(config)
    cluster.workers = LoraWorkers(cluster.run.store, LAYERS, HIDDEN, PER_GROUP, RANK)
    cluster.scheduler._workers = cluster.workers
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
    completion = replica.complete(WISH)
    assert set(completion.answer.stages) == serving(cluster.run)
    assert completion.prompt_tokens > 8


def test_from_the_receipt_on_no_answer_rests_on_a_stale_stage(cluster: Cluster, replica: Following) -> None:
    before = replica.complete(WISH).answer
    receipt = deletion.accept(cluster.run, ["r3"], [])
    assert set(receipt.stages_pruned) & set(before.stages)
    after = replica.complete(WISH).answer  # nobody told it
    assert set(after.stages) <= live(cluster.run)
    assert after.version > before.version


def test_an_answer_that_was_complete_before_the_deletion_is_not_handed_out_after_it(
    cluster: Cluster, replica: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = replica._replica.generate
    receipts: list[Any] = []

    def delete_at_the_last_moment(*wish: object) -> object:
        answer = original(*wish)  # type: ignore[arg-type]
        if not receipts:
            receipts.append(deletion.accept(cluster.run, ["r3"], []))
        return answer

    monkeypatch.setattr(replica._replica, "generate", delete_at_the_last_moment)
    answer = replica.complete(WISH).answer
    assert set(answer.stages) <= live(cluster.run)
    assert set(receipts[0].stages_pruned).isdisjoint(answer.stages)


def test_a_stream_begins_anew_when_a_deletion_strikes_it(cluster: Cluster, replica: Following) -> None:
    stream = replica.stream("q", WISH)
    first = next(stream)
    assert isinstance(first, Started) and first.depths == (3, 3)
    assert isinstance(next(stream), Piece)
    deletion.accept(cluster.run, ["r3"], [])
    rest = list(stream)
    assert isinstance(rest[0], Started), "not one more piece of the old answer"
    assert set(rest[0].stages) <= live(cluster.run)
    assert isinstance(rest[-1], Ended)
    assert "".join(e.text for e in rest if isinstance(e, Piece)) == replica.complete(WISH).answer.text


@pytest.mark.parametrize("strike", [1, 2, 5, 9])
def test_wherever_a_deletion_strikes_a_stream_it_ends_on_live_stages(
    cluster: Cluster, replica: Following, strike: int
) -> None:
    stages: tuple[str, ...] = ()
    for number, event in enumerate(replica.stream("q", WISH), start=1):
        if isinstance(event, Started):
            stages = event.stages
        assert set(stages) <= live(cluster.run)
        if number == strike:
            deletion.accept(cluster.run, ["r3"], [])
    assert isinstance(event, Ended)


def test_when_the_ledger_cannot_be_read_nothing_is_answered(
    cluster: Cluster, replica: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise LedgerError("the ledger refused", "check it")

    monkeypatch.setattr(replica._run.ledger, "events", refuse)
    with pytest.raises(LedgerError):
        replica.complete(WISH)
    with pytest.raises(LedgerError):
        next(replica.stream("q", WISH))
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
    assert set(replica.complete(WISH).answer.stages) == serving(cluster.run)


def test_a_damaged_new_stage_leaves_the_rest_in_service(cluster: Cluster, replica: Following) -> None:
    deletion.accept(cluster.run, ["r3"], [])
    replica.ready()
    cluster.settle()
    fresh = serving(cluster.run) - in_service(replica)
    for name in fresh:
        cluster.run.store.write_bytes(f"stages/{name}/adapter_model.safetensors", b"damaged")
    with pytest.raises(StoreError, match="is damaged: stages"):
        replica.set_live(1, {})  # so the scheduler hears of it
    assert set(replica.complete(WISH).answer.stages) <= live(cluster.run) - fresh


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


def test_a_cancelled_stream_ends(replica: Following) -> None:
    stream = replica.stream("q", WISH)
    next(stream)
    replica.cancel("q")
    replica.cancel("never asked")
    assert list(stream) == []
