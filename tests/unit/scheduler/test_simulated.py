"""The simulation of a cluster against the real scheduler: the same deletions, the same stages and depths.

The real one over a real ledger and real files, with the hashing trainer; each deletion settles before the next.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from benchlib.simulate import Deletion, Scenario, simulate

from s3t_ray.config.schema import Requeue
from s3t_ray.run import deletion
from s3t_ray.run.status import status
from tests.fakes import Cluster, fake_base, small_config, write_records

APART = 1e6  # seconds between deletions in the simulation: all has healed by then


@pytest.mark.parametrize("budget", [1, 3])
@pytest.mark.parametrize(
    "policy", [{"policy": "eager"}, {"policy": "lazy", "floor": 2}, {"policy": "lazy", "floor": 1}]
)
def test_the_same_deletions_cost_the_same_stages(tmp_path: Path, policy: dict[str, object], budget: int) -> None:
    fake_base(tmp_path / "base")
    ids = [f"r{number}" for number in range(40)]
    write_records(tmp_path / "data.jsonl", [(name, None) for name in ids])
    cluster = Cluster(small_config(tmp_path, budget=budget, requeue=policy), groups=1)
    cluster.settle()
    trained = len(cluster.workers.trained)
    hits, depths, cost = [], [], []
    for name in Random(4).sample(ids, 8):
        (hit,) = _hits(cluster, name)
        hits.append(hit)
        cluster.settle()
        depths.append(tuple(shard.depth for shard in status(cluster.run).shards))
        cost.append(len(cluster.workers.trained) - trained)
        trained = len(cluster.workers.trained)

    orders = tuple(shard.orders for shard in status(cluster.run).shards)
    seen = [
        simulate(
            Scenario(
                orders_by_shard=orders,
                stage_seconds=(1.0, 1.0, 1.0),
                groups=1,
                policy=Requeue.model_validate(policy),
                deletions=tuple(Deletion(APART * at, *hit) for at, hit in enumerate(hits[:count], start=1)),
                until_seconds=APART * (count + 1),
            )
        )
        for count in range(1, len(hits) + 1)
    ]
    totals = [course.stages_trained for course in seen]
    assert cost == [after - before for before, after in zip([0, *totals], totals, strict=False)]
    for course, real in zip(seen, depths, strict=True):
        last = {change.shard: change.depth for change in course.changes}
        assert tuple(last[shard] for shard in range(2)) == real


def _hits(cluster: Cluster, name: str) -> list[tuple[int, int]]:
    request = deletion.accept(cluster.run, [name], []).request_id
    return [(hit.shard, hit.slice) for hit in cluster.run.ledger.deletion(request).receipt.hits]
