"""One call runs at a time, and no request is lost."""

from __future__ import annotations

import threading

import pytest

from s3t_ray.serve.coalesced_call import CoalescedCall


def test_who_asks_meanwhile_does_not_wait_and_one_more_call_is_made_for_all_of_them() -> None:
    made: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def act() -> None:
        made.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(60)

    call = CoalescedCall(act)
    first = threading.Thread(target=call, name="first")
    first.start()
    assert begun.wait(60)
    for _ in range(5):
        call()  # returns, though the first is on its way
    go_on.set()
    first.join(60)
    assert made == ["first", "first"]
    call()
    assert made == ["first", "first", threading.current_thread().name]


def test_one_that_fails_does_not_keep_the_next_from_its_call() -> None:
    def act() -> None:
        raise ConnectionError("the head is away")

    call = CoalescedCall(act)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            call()
