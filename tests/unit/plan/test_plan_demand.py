"""What a run has and asks for under an autoscaler: one test an invariant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.errors import ClusterError, ConfigError
from s3t_ray.plan.demand import Demand, demand, on_fixed_nodes
from s3t_ray.plan.fair_shares import Claim, Standing, fair_shares, groups_of
from s3t_ray.plan.resources import most_groups
from s3t_ray.runtime.connect import check_can_heal, check_fits_cluster
from tests.fakes import small_config

COUNTS = st.integers(0, 50)


@given(st.integers(1, 50), COUNTS, COUNTS, COUNTS, st.booleans())
def test_limits(most: int, share: int, to_train: int, held: int, resting: bool) -> None:
    found = demand(most, share, to_train, held, resting)
    assert found.groups >= 0 and found.missing >= 0
    assert found.groups <= share
    if to_train and not resting:
        assert found.groups + found.missing == min(most, to_train)
    else:
        assert found.missing == 0, "nothing is asked for while there is nothing to train"
        assert found.groups <= held, "and no group is begun"
    if resting:
        assert found.groups == 0, "its nodes may go"


@given(COUNTS, COUNTS, COUNTS, st.booleans())
def test_on_nodes_that_stay_groups_start_on_demand_and_rest(
    share: int, to_train: int, held: int, resting: bool
) -> None:
    found = on_fixed_nodes(share, to_train, held, resting)
    assert 0 <= found <= share
    if resting:
        assert found == 0
    else:
        assert found >= min(share, to_train), "there is work for them"
        assert found >= min(share, held), "a base that is loaded stays for what comes next"
        assert found <= max(to_train, held), "and none begins with nothing to train"


def test_in_words() -> None:
    assert demand(8, share=0, to_train=64, held=0, resting=False) == Demand(0, 8), "an empty cluster"
    assert demand(8, share=3, to_train=64, held=3, resting=False) == Demand(3, 5), "nodes come one by one"
    assert demand(8, share=8, to_train=64, held=7, resting=False) == Demand(8, 0)
    assert demand(8, share=7, to_train=64, held=8, resting=False) == Demand(7, 1), "one was lost"
    assert demand(8, share=8, to_train=2, held=8, resting=False) == Demand(2, 0), "the last stages hold no more"
    assert demand(8, share=8, to_train=0, held=2, resting=False) == Demand(2, 0), "a moment of nothing to do"
    assert demand(8, share=8, to_train=0, held=2, resting=True) == Demand(0, 0)
    assert demand(8, share=8, to_train=5, held=0, resting=False) == Demand(5, 0), "a deletion, later"


@dataclass
class _Cluster:
    """Nodes of one group's size, started and ended as an autoscaler does, for some runs side by side."""

    most_nodes: int
    nodes: int = 0
    held: dict[str, int] = field(default_factory=dict)

    def round(self, runs: Mapping[str, tuple[int, int]]) -> None:
        """Runs: (most, to train). Each looks at the nodes, then the autoscaler looks at what they ask for."""
        claims = {run: Claim(min(1.0, most / max(1, self.nodes)), Standing.TRAINING) for run, (most, _) in runs.items()}
        shares = fair_shares(claims)
        missing = 0
        for run, (most, to_train) in runs.items():
            share = min(groups_of(shares[run], self.nodes), most, self.nodes)
            found = demand(most, share, to_train, self.held.get(run, 0), resting=not to_train)
            self.held[run] = found.groups
            missing += found.missing
        wanted = sum(self.held.values()) + missing
        self.nodes = min(self.most_nodes, wanted)


@given(
    st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1),
    st.integers(1, 40),
)
def test_a_cluster_grows_to_what_its_runs_may_have_and_shrinks_to_nothing(
    runs: dict[str, tuple[int, int]], most_nodes: int
) -> None:
    cluster = _Cluster(most_nodes)
    needed = sum(min(limits) for limits in runs.values())
    seen = []
    for _ in range(40):
        cluster.round(runs)
        seen.append(cluster.nodes)
    if needed <= most_nodes and all(to_train >= most for most, to_train in runs.values()):
        assert seen[-1] == needed, "everybody has all that it may have"
    assert max(seen) <= most_nodes
    done = {run: (most, 0) for run, (most, _) in runs.items()}
    for _ in range(3):
        cluster.round(done)
    assert cluster.nodes == 0


def test_the_limits_of_a_run(tmp_path: Path) -> None:
    def most(**workers: object) -> int:
        return most_groups(small_config(tmp_path, workers=workers))  # 2 shards x 2 sequences

    assert (most(), most(autoscale_to=3), most(autoscale_to=30)) == (4, 3, 4)
    assert most(autoscale_to=3, gpus_per_rank=1, max_gpus=2) == 2


def test_a_fixed_number_of_groups_asks_no_other_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"autoscale_to.*\n?.*workers.groups is 2.*\n.*set workers.groups to auto"):
        small_config(tmp_path, workers={"groups": 2, "autoscale_to": 2})


def test_nodes_need_not_be_there_before_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3t_ray.runtime.connect.nodes", lambda: [{"CPU": 0.0}])
    config = small_config(tmp_path, workers={"autoscale_to": 2})
    check_fits_cluster(config, grows=True)
    check_can_heal(config, grows=True)
    for check in (check_fits_cluster, check_can_heal):
        with pytest.raises(ClusterError, match="room for 0"):
            check(config, grows=False)  # a Ray of our own: nobody adds a node to it
        with pytest.raises(ClusterError, match="room for 0"):
            check(small_config(tmp_path), grows=True)
