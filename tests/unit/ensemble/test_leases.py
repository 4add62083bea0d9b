"""Leases and swaps: no result of a removed stage is returned, and a swap waits only for running turns."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import dataclass

import pytest

from s3t_ray.ensemble.leases import LiveService, Revoked


@dataclass(frozen=True, eq=False)
class Set:
    stage_ids: frozenset[str]


def live(*ids: str) -> Set:
    return Set(frozenset(ids))


def test_a_turn_computes_with_the_set_the_lease_began_with() -> None:
    first, second = live("a"), live("a", "b")
    service = LiveService(first)
    with service.lease() as lease:
        service.swap(lambda now: second)
        assert service.turn(lease, lambda now: now) is first  # growth takes nothing away
    with service.lease() as lease:
        assert service.turn(lease, lambda now: now) is second


def test_a_lease_ends_when_one_of_its_stages_leaves() -> None:
    service = LiveService(live("a", "b"))
    with service.lease() as lease:
        lease.memory = "cache"
        service.swap(lambda now: live("a", "c"))
        assert lease.memory is None
        with pytest.raises(Revoked):
            service.turn(lease, lambda now: now)


def test_a_lease_that_outlived_growth_still_ends_with_its_own_stage() -> None:
    service = LiveService(live("a"))
    with service.lease() as lease:
        service.swap(lambda now: live("a", "b"))
        service.swap(lambda now: live("b"))
        with pytest.raises(Revoked):
            service.turn(lease, lambda now: now)


def test_a_lease_on_the_base_alone_never_ends() -> None:
    service = LiveService(live())
    with service.lease() as lease:
        service.swap(lambda now: live("a"))
        service.swap(lambda now: live())
        assert service.turn(lease, lambda now: "answer") == "answer"


def test_a_swap_waits_for_the_running_turn_and_its_result_is_lost() -> None:
    service = LiveService(live("a"))
    running, go_on, swapped = threading.Event(), threading.Event(), threading.Event()
    outcome: list[object] = []

    def answer() -> None:
        def compute(now: Set) -> str:
            running.set()
            assert go_on.wait(30)
            lease.memory = "made of a"
            return "from a"

        with service.lease() as lease:
            try:
                outcome.append(service.turn(lease, compute))
            except Revoked:
                outcome.append(("revoked", lease.memory))

    def prune() -> None:
        service.swap(lambda now: live())
        swapped.set()

    answering, pruning = threading.Thread(target=answer), threading.Thread(target=prune)
    answering.start()
    assert running.wait(30)
    pruning.start()
    while service._live.stage_ids:  # the new set is in service before the old turn ends
        assert not swapped.wait(0.001)
    assert not swapped.is_set()
    go_on.set()
    pruning.join(30)
    answering.join(30)
    assert swapped.is_set()
    assert outcome == [("revoked", None)]


def test_a_swap_does_not_wait_for_turns_whose_stages_stay() -> None:
    service = LiveService(live("a"))
    running, go_on = threading.Event(), threading.Event()

    def compute(now: Set) -> str:
        running.set()
        assert go_on.wait(30)
        return "done"

    def answer(results: list[str]) -> None:
        with service.lease() as lease:
            results.append(service.turn(lease, compute))

    results: list[str] = []
    answering = threading.Thread(target=answer, args=(results,))
    answering.start()
    assert running.wait(30)
    service.swap(lambda now: live("a", "b"))  # would hang here for ever
    go_on.set()
    answering.join(30)
    assert results == ["done"]


def test_nothing_refers_to_a_set_that_left_even_while_its_lease_is_open() -> None:
    old = live("a")
    service = LiveService(old)
    gone = weakref.ref(old)
    with service.lease() as lease:
        service.turn(lease, lambda now: None)
        service.swap(lambda now: live())
        del old
        gc.collect()
        assert gone() is None


def test_an_error_in_a_turn_frees_the_lease_for_the_next_swap() -> None:
    service = LiveService(live("a"))
    with service.lease() as lease:
        with pytest.raises(ZeroDivisionError):
            service.turn(lease, lambda now: 1 // 0)
        assert service.swap(lambda now: live()).stage_ids == frozenset()
