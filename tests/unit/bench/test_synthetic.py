"""A synthetic run answers as one that was read in and trained."""

from __future__ import annotations

from pathlib import Path

from benchlib.in_process import NoReplicas, OwnShards, SimulatedWorkers
from benchlib.synthetic import Sizes, accept_all, make_run, record_id

from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.shard_view import view_shard
from s3t_ray.scheduler.scheduler import Scheduler


def test_every_stage_is_live_and_a_deletion_hits_the_right_ones(tmp_path: Path) -> None:
    sizes = Sizes(records=60, shards=2, slices=3, budget=2)
    with make_run(tmp_path, sizes) as run:
        assert accept_all(run) == sum(len(run.plan(shard).stages) for shard in (0, 1))
        assert [view_shard(run, shard).depths for shard in (0, 1)] == [(3, 3), (3, 3)]
        receipt = deletion.accept(run, [record_id(3)], [])  # shard 3 % 2, slice 3 // 2 % 3
        (impact,) = receipt.shards
        assert (receipt.records, impact.shard, impact.slices, impact.stages) == (1, 1, (1,), len(receipt.stages_pruned))
        assert receipt.stages_pruned
        view = view_shard(run, 1)
        assert view.stale == frozenset(receipt.stages_pruned) and view.unclean == {1}
        assert view.depths == tuple(order.index(1) for order in view.plan.orders)


def test_the_real_scheduler_trains_and_heals_it_on_simulated_groups(tmp_path: Path) -> None:
    with make_run(tmp_path, Sizes(records=60, shards=3, slices=3, budget=2)) as run:
        epoch = run.ledger.take_lease("test")
        workers = SimulatedWorkers(2, lambda depth: 10.0 * depth)
        scheduler = Scheduler(run, epoch, workers, OwnShards(run, epoch), NoReplicas(), lambda: workers.now)

        def settle() -> None:
            while True:
                with workers.computing():
                    scheduler.tick(0)
                if scheduler.idle:
                    return
                workers.skip_to_next_end()

        settle()
        wanted = sum(len(run.plan(shard).stages) for shard in range(3))
        assert workers.trained == workers.submitted == wanted
        # Two groups share the work of 10 s a slice; each idles only while the scheduler computes, and at the end.
        work = sum(10.0 * stage.depth for shard in range(3) for stage in run.plan(shard).stages.values())
        assert work / 2 <= workers.now < work / 2 + 30.0 + 60.0
        receipt = deletion.accept(run, [record_id(0)], [])
        settle()
        assert run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED
        assert workers.trained == wanted + len(receipt.stages_pruned)
