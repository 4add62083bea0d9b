"""Drives a run from outside its actors: starts the scheduler, shows progress, survives its death.

In: an open run and what to wait for. Out: the scheduler's last snapshot. `train` and `delete` are
this with another end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from s3t_ray.errors import ClusterError, S3TError
from s3t_ray.runtime.reports import Status
from s3t_ray.runtime.run import Run
from s3t_ray.runtime.status import status

LOOK_SECONDS = 0.5
RESTARTS = 50
"""Deaths of the scheduler's process that one command outlives, each with a new scheduler."""


def drive(
    run: Run,
    *,
    detached: bool,
    watch: Callable[[Status], None],
    until: Callable[[Any, Status], bool],
    with_scheduler: Callable[[Any], None] = lambda actor: None,
) -> Any:
    """Run a scheduler until `until(snapshot, status)`; the last snapshot (`actors.Snapshot`).

    Ray must be connected. `detached`: in a cluster, so that the scheduler outlives this process. A
    scheduler that is there already, for the same config, is followed; it goes on afterwards.
    `with_scheduler` is called with the actor, and again with each that replaces it.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    from s3t_ray.runtime.actors import find_scheduler, start_scheduler

    actor, end, ours = find_scheduler(run), None, False
    pause = threading.Event()
    restarts = 0
    try:
        while True:
            try:
                if actor is None:
                    actor, end = start_scheduler(run, detached)
                    ours = True
                    with_scheduler(actor)
                elif end is None and restarts == 0:
                    actor = _same_config(run, actor)
                    if actor is None:
                        continue
                if end is not None:
                    ended, _ = ray.wait([end], timeout=0)
                    if ended:
                        ray.get(end)
                        raise ClusterError("the scheduler stopped by itself", "run the same command again; it resumes")
                snapshot = ray.get(actor.snapshot.remote())
            except RayTaskError as error:
                raise _cause(error) from error
            except RayActorError as error:
                restarts += 1
                if restarts > RESTARTS:
                    raise ClusterError(f"the scheduler died {restarts} times: {error}", "see its log") from error
                actor, end = None, None
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


def scheduler_is_active(run: Run) -> bool:
    """Whether some process, anywhere, is scheduling this run now. Takes about 2 s, and no clock: beats are counted."""
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


def follow(run: Run, *, watch: Callable[[Status], None], until: Callable[[Status], bool]) -> Status:
    """Watch another process's scheduler through the ledger until `until(status)`.

    Raises ClusterError when that scheduler stops beating first.
    """
    pause = threading.Event()
    while True:
        state = status(run)
        watch(state)
        if until(state):
            return state
        if not scheduler_is_active(run):
            raise ClusterError(
                "the scheduler that was carrying this out is gone; nothing is lost", "run the same command again"
            )
        pause.wait(LOOK_SECONDS)


def _same_config(run: Run, actor: Any) -> Any | None:
    """The actor when it serves today's config, else None after ending it."""
    import ray

    from s3t_ray.config.load import dump_config

    if ray.get(actor.serves.remote(dump_config(run.config))):
        return actor
    _end(actor, None)
    return None


def _end(actor: Any, end: Any | None) -> None:
    """Let the tick that is on its way finish, then end the actor; its worker groups end with it."""
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(actor.stop.remote(), timeout=10)
        if end is not None:
            ray.wait([end], timeout=30)
    except RayError:
        pass  # it is dead already, which is what was wanted
    ray.kill(actor)


def _cause(error: Any) -> Exception:
    cause = error.as_instanceof_cause()
    return cause if isinstance(cause, S3TError) else error
