"""Who keeps a scheduler at work: one is started where none is, and none where another one beats. Ray is played."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

from s3t_ray.errors import ClusterError
from s3t_ray.serve import caretaker


class Stage:
    """A scripted world: `find` and `active` are what is seen, `started` and `killed` what was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stop = threading.Event()
        self.actor: Any = None
        self.active = False
        self.serving = True
        self.ended: Exception | None = None
        self.started = 0
        self.killed = 0
        self.looks = 0
        self.script: dict[int, Any] = {}
        monkeypatch.setattr(caretaker, "LOOK_SECONDS", 0.0)
        monkeypatch.setattr(caretaker, "LONGEST_PAUSE_SECONDS", 0.0)
        monkeypatch.setattr(caretaker, "find_scheduler", lambda run: self._look())
        monkeypatch.setattr(caretaker, "scheduler_is_active", lambda run: self.active)
        monkeypatch.setattr(caretaker, "start_scheduler", self._start)
        monkeypatch.setattr(caretaker, "ray", SimpleNamespace(get=self._get, wait=self._wait, kill=self._kill))

    def play(self, script: dict[int, Any]) -> None:
        """Run the caretaker; `script[n]` is called at its n-th look at anything, and the last entry ends it."""
        self.script = script
        caretaker.keep_scheduling(None, self.stop)  # type: ignore[arg-type]

    def _look(self) -> Any:
        self._tick()
        return self.actor

    def _tick(self) -> None:
        self.looks += 1
        self.script.get(self.looks, lambda: None)()
        if self.looks >= max(self.script):
            self.stop.set()

    def _start(self, run: object, detached: bool) -> tuple[Any, object]:
        assert not detached, "it must end with the process that keeps it"
        self.started += 1
        self.ended = None
        self.actor = SimpleNamespace(is_serving=SimpleNamespace(remote=lambda: "serving"))
        return self.actor, "end"

    def _get(self, what: str) -> bool:
        if what == "end":
            assert self.ended is not None
            raise self.ended
        self._tick()
        if self.actor is None:
            raise RayActorError
        return self.serving

    def _wait(self, futures: list[object], timeout: float) -> tuple[list[object], list[object]]:
        return (futures, []) if self.ended is not None else ([], futures)

    def _kill(self, actor: object) -> None:
        self.killed += 1
        self.actor = None


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_one_is_started_where_none_is_and_again_when_it_dies(stage: Stage) -> None:
    stage.play({5: lambda: setattr(stage, "actor", None), 12: lambda: None})
    assert stage.started == 2 and stage.killed == 0


def test_none_is_started_while_another_one_beats(stage: Stage) -> None:
    stage.active = True
    stage.play({6: lambda: setattr(stage, "active", False), 10: lambda: None})
    assert stage.started == 1
    stage.stop.clear()


def test_one_that_ended_is_replaced(stage: Stage) -> None:
    stage.play({4: lambda: setattr(stage, "ended", ClusterError("no room", "add nodes")), 12: lambda: None})
    assert stage.started == 2 and stage.killed == 1


def test_an_actor_that_serves_no_more_is_replaced_but_not_at_once(stage: Stage) -> None:
    stage.actor = SimpleNamespace(is_serving=SimpleNamespace(remote=lambda: "serving"))
    stage.serving = False
    stage.play({caretaker.IDLE_LOOKS: lambda: None})
    assert stage.killed == 0
    stage.stop.clear()
    stage.looks = 0
    stage.play({3 * caretaker.IDLE_LOOKS: lambda: None})
    assert stage.killed >= 1 and stage.started >= 1
