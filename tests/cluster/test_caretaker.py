"""The caretaker starts a scheduler if there is none, but not while another sends heartbeats. Ray is faked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from s3t_ray.errors import ClusterError
from s3t_ray.serve import caretaker


class Played:
    """A world with at most one scheduler in the cluster, and a script of events by look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stop = threading.Event()
        self.actor: str | None = None
        self.elsewhere = False
        self.ended: Exception | None = None
        self.taken = False
        self.started = 0
        self.killed = 0
        self._looks = 0
        self._script: dict[int, Callable[[], None]] = {}
        monkeypatch.setattr(caretaker, "LOOK_SECONDS", 0.0)
        monkeypatch.setattr(caretaker, "LONGEST_PAUSE_SECONDS", 0.0)
        monkeypatch.setattr(caretaker, "find_scheduler", lambda run: self._look())
        monkeypatch.setattr(caretaker, "scheduler_is_active", lambda run: self.elsewhere)
        monkeypatch.setattr(caretaker, "start_scheduler", self._start)
        monkeypatch.setattr(caretaker, "end_of", lambda actor: "end")
        monkeypatch.setattr(caretaker, "ray", SimpleNamespace(get=self._get, wait=self._wait, kill=self._kill))

    def run(self, looks: int, script: dict[int, Callable[[], None]]) -> None:
        """The caretaker for `looks` looks at the scheduler; `script[n]` happens before the n-th."""
        self._looks, self._script = looks, script
        self._seen = 0
        caretaker.keep_scheduling(None, self.stop)  # type: ignore[arg-type]

    def dies(self) -> None:
        self.actor, self.ended = None, RayActorError()

    def fails(self) -> None:
        self.ended = ClusterError("no room", "add nodes")

    def _tick(self) -> None:
        self._seen += 1
        self._script.get(self._seen, lambda: None)()
        if self._seen >= self._looks:
            self.stop.set()

    def _look(self) -> str | None:
        self._tick()
        return self.actor

    def _start(self, run: object, detached: bool) -> tuple[str, str]:
        assert not detached, "it must end with the process that keeps it"
        assert self.actor is None
        if self.taken:
            self.taken = False
            self.actor = "another"
            raise ValueError("the name is taken")
        self.started += 1
        self.actor, self.ended = f"actor {self.started}", None
        return self.actor, "end"

    def _wait(self, futures: list[str], timeout: float) -> tuple[list[str], list[str]]:
        self._tick()
        return (futures, []) if self.ended is not None else ([], futures)

    def _get(self, what: str) -> None:
        assert self.ended is not None
        raise self.ended

    def _kill(self, actor: str) -> None:
        self.killed += 1
        self.actor = None


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


def test_one_is_started_where_none_is_and_again_when_it_dies(played: Played) -> None:
    played.run(12, {6: played.dies})
    assert played.started == 2 and played.actor == "actor 2"


def test_none_is_started_while_another_one_beats(played: Played) -> None:
    played.elsewhere = True
    played.run(6, {})
    assert played.started == 0
    played.stop.clear()
    played.elsewhere = False
    played.run(6, {})
    assert played.started == 1


def test_one_that_is_there_is_left_alone(played: Played) -> None:
    played.actor = "of a training"
    played.run(8, {})
    assert (played.started, played.killed) == (0, 0)


def test_one_that_ended_by_itself_gives_its_name_back(played: Played) -> None:
    played.run(12, {5: played.fails})
    assert (played.started, played.killed) == (2, 1)


def test_whoever_is_quicker_with_the_name_is_followed(played: Played) -> None:
    played.taken = True
    played.run(8, {})
    assert played.started == 0 and played.actor == "another"
