"""Drives a run from outside its actors: starts the scheduler, shows progress, and survives its death.

In: an open run and a condition to wait for. Out: the scheduler's last snapshot. `train` and `delete`
use it with different conditions.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from s3t_ray.errors import ClusterError, S3TError
from s3t_ray.run.reports import Status
from s3t_ray.run.run import Run
from s3t_ray.run.status import status

_log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
RESTARTS = 50
"""The number of times that one command replaces a dead scheduler."""


def drive(
    run: Run,
    *,
    detached: bool,
    watch: Callable[[Status], None],
    until: Callable[[Any, Status], bool],
    with_scheduler: Callable[[Any], None] = lambda actor: None,
) -> Any:
    """Run a scheduler until `until(snapshot, status)`. Returns the last snapshot (`scheduler.loop.Snapshot`).

    Ray must be connected. `detached`: let the scheduler outlive this process, for clusters. An existing
    scheduler with the same config is followed instead, and continues afterwards. `with_scheduler` is
    called with the actor, and again with each replacement. Raises ClusterError if schedulers keep dying,
    and the S3TError that ended a scheduler.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    actor, end, ours = None, None, False
    pause = threading.Event()
    deaths = 0
    try:
        while True:
            try:
                if actor is None:
                    actor, end, ours = _join(run, detached)
                    if ours:
                        with_scheduler(actor)
                if ray.wait([end], timeout=0)[0]:
                    ray.get(end)
                    if ours:
                        raise ClusterError("the scheduler stopped unexpectedly", "repeat the command; it resumes")
                    _end(actor, None)  # the process that started it no longer needs it
                    actor = None
                    continue
                snapshot = ray.get(actor.snapshot.remote())
            except RayTaskError as error:
                raise _cause(error) from error
            except (RayError, ValueError) as error:  # it died, or another process registered its name first
                deaths += 1
                if deaths > RESTARTS:
                    raise ClusterError(f"the scheduler died {deaths} times: {error}", "see its log") from error
                if isinstance(error, RayError):
                    _log.warning("the scheduler ended (%s): starting another", str(error).strip().partition("\n")[0])
                actor, ours = None, False
                pause.wait(LOOK_SECONDS)
                continue
            state = status(run, snapshot.running)
            watch(state)
            if snapshot.rounds and until(snapshot, state):
                return snapshot
            pause.wait(LOOK_SECONDS)
    finally:
        if ours and actor is not None:
            _end(actor, end)


def _join(run: Run, detached: bool) -> tuple[Any, Any, bool]:
    """The existing scheduler if its config matches, or a new one: (actor, reference to its end, whether it is new)."""
    import ray

    from s3t_ray.config.load import dump_config
    from s3t_ray.runtime.actors import end_of, find_scheduler, start_scheduler

    found = find_scheduler(run)
    if found is not None:
        if ray.get(found.serves.remote(dump_config(run.config))):
            return found, end_of(found), False
        _end(found, None)
    return *start_scheduler(run, detached), True


def scheduler_is_active(run: Run) -> bool:
    """Whether any process is scheduling this run now. Takes up to 2 s; counts heartbeats, so clocks do not matter."""
    before = run.ledger.lease()
    if before.epoch == 0:
        return False
    pause = threading.Event()
    for _ in range(10):
        pause.wait(0.2)
        now = run.ledger.lease()
        if (now.epoch, now.beats) != (before.epoch, before.beats):
            return True
    return False


def follow(run: Run, *, watch: Callable[[Status], None], until: Callable[[Status], bool]) -> Status | None:
    """Watch another process's scheduler through the ledger until `until(status)`. None: it stopped before that."""
    pause = threading.Event()
    while True:
        state = status(run)
        watch(state)
        if until(state):
            return state
        if not scheduler_is_active(run):
            return None
        pause.wait(LOOK_SECONDS)


def _end(actor: Any, end: Any | None) -> None:
    """Let the current round finish, then end the actor. Its worker groups end with it."""
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(actor.stop.remote(), timeout=10)
        if end is not None:
            ray.wait([end], timeout=30)
    except RayError:
        pass  # it is already dead
    ray.kill(actor)


def _cause(error: Any) -> Exception:
    cause = error.as_instanceof_cause()
    return cause if isinstance(cause, S3TError) else error
