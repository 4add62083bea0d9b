"""Keeps a scheduler at work on a run that is in service, so that deletions by HTTP are carried to their end.

In: an open run and Ray. Out: a scheduler actor, started where none is at work, here or elsewhere, and
again when it ends. It ends with the process that called. Never competes: while another scheduler, of a training
for instance, beats in the ledger, it waits.
"""

from __future__ import annotations

import logging
import threading

import ray
from ray.exceptions import RayError

from s3t_ray.errors import S3TError
from s3t_ray.run.run import Run
from s3t_ray.runtime.actors import end_of, find_scheduler, start_scheduler
from s3t_ray.runtime.driver import scheduler_is_active

LOOK_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0

_log = logging.getLogger(__name__)


def keep_scheduling(run: Run, stop: threading.Event) -> None:
    """Until `stop`. Call it in a thread of a process that is connected to Ray."""
    pause = LOOK_SECONDS
    while not stop.wait(pause):
        pause = LOOK_SECONDS
        try:
            _attend(run, stop)
        except ValueError:
            continue  # somebody else was quicker with the name
        except (S3TError, RayError) as error:
            pause = LONGEST_PAUSE_SECONDS if isinstance(error, S3TError) else LOOK_SECONDS
            _log.warning("the scheduler ended: %s; the next look is in %.0f s", error, pause)


def _attend(run: Run, stop: threading.Event) -> None:
    """Stay with the run's scheduler of this cluster until it ends or `stop`; raises what ended it."""
    actor = find_scheduler(run)
    if actor is not None:
        end = end_of(actor)
    elif scheduler_is_active(run):
        return  # in another cluster, or about to end
    else:
        actor, end = start_scheduler(run, detached=False)
    while not stop.wait(LOOK_SECONDS):
        if ray.wait([end], timeout=0)[0]:
            ray.kill(actor)  # it schedules nothing any more, but still has the name
            ray.get(end)
            return
