"""Replicas that confirm, fail, refuse, or come and go: faked, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from s3t_ray.errors import StoreError, TrainError
from s3t_ray.scheduler.confirmations import CONFIRM_SECONDS, Confirmations

CHAINS = {0: ("a", "b"), 1: ()}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class PlayedReplica:
    """Answers with `answer(version)`, after `seconds` of the clock."""

    def __init__(
        self, clock: Clock, answer: Callable[[int], int | None] = lambda version: version, seconds: float = 0.0
    ) -> None:
        self.told: list[tuple[int, dict[int, tuple[str, ...]]]] = []
        self.ended = False
        self._clock = clock
        self._answer = answer
        self._seconds = seconds
        self._ready = 0.0

    def ask(self, version: int, chains: Mapping[int, tuple[str, ...]]) -> PlayedReplica:
        self.told.append((version, dict(chains)))
        self._ready = self._clock.now + self._seconds
        return self

    def version(self, wait_seconds: float) -> int | None:
        waited = min(wait_seconds, max(0.0, self._ready - self._clock.now))
        self._clock.now += waited
        return self._answer(self.told[-1][0]) if self._ready <= self._clock.now else None

    def end(self) -> None:
        self.ended = True


def refuse(error: Exception) -> Callable[[int], int]:
    def answer(version: int) -> int:
        raise error

    return answer


def test_only_a_replica_that_confirms_this_very_set_goes_on() -> None:
    clock = Clock()
    replicas = Confirmations(clock)
    replicas.begin(7)
    played = {
        "good": PlayedReplica(clock),
        "older": PlayedReplica(clock, lambda version: version - 1),
        "newer": PlayedReplica(clock, lambda version: version + 1),
        "dead": PlayedReplica(clock, lambda version: None),
    }
    for name, replica in played.items():
        replicas.attach(name, replica)
    assert replicas.set_live(CHAINS) == ()
    assert {name for name, replica in played.items() if replica.ended} == {"older", "newer", "dead"}
    assert replicas.set_live({0: ("a",)}) == ()
    first, second = played["good"].told
    assert first[1] == CHAINS and second[1] == {0: ("a",)}
    assert 7 << 32 < first[0] < second[0] < 8 << 32, "above all versions of earlier schedulers"
    assert all(len(replica.told) == 1 for replica in played.values() if replica.ended)


def test_one_that_cannot_load_a_stage_goes_on_with_less_and_is_named() -> None:
    clock = Clock()
    replicas = Confirmations(clock)
    for name, error in (("damaged", StoreError("it is damaged", "")), ("misfit", TrainError("it does not fit", ""))):
        replicas.attach(name, PlayedReplica(clock, refuse(error)))
    replicas.attach("good", PlayedReplica(clock))
    assert set(replicas.set_live(CHAINS)) == {"damaged", "misfit"}
    assert set(replicas.set_live(CHAINS)) == {"damaged", "misfit"}, "they are told again"


def test_all_of_them_together_are_waited_for_no_longer_than_one() -> None:
    clock = Clock()
    replicas = Confirmations(clock)
    slow = [PlayedReplica(clock, seconds=CONFIRM_SECONDS + 1) for _ in range(3)]
    in_time = PlayedReplica(clock, seconds=CONFIRM_SECONDS - 1)
    for number, replica in enumerate([*slow, in_time]):
        replicas.attach(str(number), replica)
    assert replicas.set_live(CHAINS) == ()
    assert clock.now == 100 + CONFIRM_SECONDS
    assert all(replica.ended for replica in slow) and not in_time.ended


def test_one_that_takes_the_name_of_a_silent_one_meanwhile_is_kept() -> None:
    clock = Clock()
    replicas = Confirmations(clock)
    heir = PlayedReplica(clock)

    def answer(version: int) -> None:
        replicas.attach("replica", heir)

    silent = PlayedReplica(clock, answer)
    replicas.attach("replica", silent)
    replicas.set_live(CHAINS)
    assert silent.ended and not heir.ended
    replicas.set_live(CHAINS)
    assert len(heir.told) == 1
