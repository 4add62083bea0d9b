"""Keeps a scheduler at work on a run that is in service, so that deletions by HTTP are carried to their end.

In: an open run and Ray. Out: a scheduler actor, started where none is at work, here or elsewhere, and
again when it dies. It ends with the process that called. Never competes: while another scheduler, of a training
for instance, beats in the ledger, it waits.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from s3t_ray.errors import S3TError
from s3t_ray.runtime.actors import find_scheduler, start_scheduler
from s3t_ray.runtime.driver import scheduler_is_active
from s3t_ray.runtime.run import Run

LOOK_SECONDS = 2.0
IDLE_LOOKS = 5
"""An actor whose `serve` is not at work for so many looks in a row has lost whoever started it."""
LONGEST_PAUSE_SECONDS = 60.0

_log = logging.getLogger(__name__)


def keep_scheduling(run: Run, stop: threading.Event) -> None:
    """Until `stop`. Call it in a thread of a process that is connected to Ray."""
    pause = LOOK_SECONDS
    while not stop.wait(pause):
        try:
            actor, end = find_scheduler(run), None
            if actor is None and not scheduler_is_active(run):
                actor, end = start_scheduler(run, detached=False)
            if actor is not None:
                _attend(actor, end, stop)
            pause = LOOK_SECONDS
        except ValueError:
            pause = LOOK_SECONDS  # somebody else was quicker with the name
        except (S3TError, RayError) as error:
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            _log.warning("the scheduler ended: %s; the next try is in %.0f s", error, pause)


def _attend(actor: Any, end: ray.ObjectRef | None, stop: threading.Event) -> None:
    """Return when the scheduler is gone or `stop` is set; raises what ended it, if it is ours."""
    idle = 0
    while not stop.wait(LOOK_SECONDS):
        if end is not None and ray.wait([end], timeout=0)[0]:
            ray.kill(actor)
            ray.get(end)
            return
        try:
            idle = 0 if ray.get(actor.is_serving.remote()) else idle + 1
        except RayActorError:
            return
        if idle >= IDLE_LOOKS:
            ray.kill(actor)
            return
