"""Shares of a cluster among its runs: one test an invariant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.plan.fair_shares import Claim, Standing, fair_shares, groups_of

CLAIMS = st.dictionaries(
    st.sampled_from("abcdef"), st.builds(Claim, st.floats(0, 1), st.sampled_from(Standing)), max_size=6
)


@given(CLAIMS)
def test_shares_exceed_neither_the_cluster_nor_the_requests(claims: dict[str, Claim]) -> None:
    shares = fair_shares(claims)
    assert shares.keys() == claims.keys()
    assert sum(shares.values()) <= 1 + 1e-9
    assert all(0 <= shares[run] <= claim.share + 1e-9 for run, claim in claims.items())


@given(CLAIMS)
def test_nothing_is_left_while_a_run_wants_more(claims: dict[str, Claim]) -> None:
    shares = fair_shares(claims)
    if any(shares[run] < claim.share - 1e-9 for run, claim in claims.items()):
        assert sum(shares.values()) == pytest.approx(1)


@given(CLAIMS)
def test_a_run_that_gets_less_than_requested_gets_no_less_than_its_peers(claims: dict[str, Claim]) -> None:
    shares = fair_shares(claims)
    for run, claim in claims.items():
        if shares[run] < claim.share - 1e-9:
            peers = [other for other, its in claims.items() if its.standing is claim.standing]
            assert all(shares[other] <= shares[run] + 1e-9 for other in peers)
            assert all(shares[other] < 1e-9 for other, its in claims.items() if its.standing > claim.standing)


def test_in_words() -> None:
    training, idle, fixed = Standing.TRAINING, Standing.IDLE, Standing.FIXED
    assert fair_shares({"a": Claim(1, training)}) == {"a": 1}
    assert fair_shares({"a": Claim(1, training), "b": Claim(1, training)}) == {"a": 0.5, "b": 0.5}
    assert fair_shares({"a": Claim(0.2, training), "b": Claim(1, training)}) == {"a": 0.2, "b": 0.8}
    assert fair_shares({"a": Claim(1, idle), "b": Claim(1, training)}) == {"a": 0, "b": 1}
    assert fair_shares({"a": Claim(1, idle)}) == {"a": 1}, "alone, it keeps what it has"
    assert fair_shares({"a": Claim(1, training), "b": Claim(0.25, fixed)}) == {"a": 0.75, "b": 0.25}


def test_every_run_has_a_group_to_go_on_with() -> None:
    assert (groups_of(0.0, 8), groups_of(0.5, 8), groups_of(1.0, 8), groups_of(0.3, 1)) == (1, 4, 8, 1)
    assert groups_of(1 / 3, 3) == 1, "no rounding error takes a group away"
