"""The stages that a shard can train, and the number of sequences they belong to."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.requeue import sequences_to_train, trainable
from tests.fakes import Cluster, fake_base, small_config, write_records


def view_of(folder: Path, live: int) -> ShardView:
    """A shard of two sequences of three stages, the first `live` of each there."""
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    cluster = Cluster(small_config(folder))
    plan = cluster.run.plan(0)
    there = frozenset(name for chain in plan.chains for name in chain[:live])
    return ShardView(plan, there, frozenset(), cluster.run.ledger.slices(0), ever_complete=False)


def test_sequences_that_lack_something(tmp_path: Path) -> None:
    for live, expected in ((0, 2), (2, 2), (3, 0)):
        view = view_of(tmp_path / str(live), live)
        assert sequences_to_train(view, frozenset()) == expected
        assert trainable(view, frozenset()) == (expected > 0)


def test_nothing_goes_on_from_what_was_given_up(tmp_path: Path) -> None:
    view = view_of(tmp_path, 1)
    first, second = view.plan.chains
    assert sequences_to_train(view, {first[1]}) == 1
    assert sequences_to_train(view, {first[2]}) == 2, "its second stage comes first"
    assert sequences_to_train(view, {first[1], second[1]}) == 0
    assert trainable(view, {first[1]}) and not trainable(view, {first[1], second[1]})
    assert trainable(view, {first[2], second[2]})
