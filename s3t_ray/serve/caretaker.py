"""Keeps a scheduler running for a served run, so that deletions over HTTP are completed.

In: an open run and Ray. Out: a scheduler actor, started if none is running here or elsewhere, and restarted when it
ends. It ends with the calling process. It never competes: while another scheduler, such as that of a training, sends
heartbeats to the ledger, it waits.
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
    """Keep a scheduler until `stop`. Call it in a thread of a process that is connected to Ray."""
    pause = LOOK_SECONDS
    while not stop.wait(pause):
        pause = LOOK_SECONDS
        try:
            _attend(run, stop)
        except ValueError:
            continue  # another process took the name first
        except (S3TError, RayError) as error:
            pause = LONGEST_PAUSE_SECONDS if isinstance(error, S3TError) else LOOK_SECONDS
            _log.warning("the scheduler ended: %s; the next look is in %.0f s", error, pause)


def _attend(run: Run, stop: threading.Event) -> None:
    """Follow the run's scheduler in this cluster until it ends or `stop`. Raises the error that ended it."""
    actor = find_scheduler(run)
    if actor is not None:
        end = end_of(actor)
    elif scheduler_is_active(run):
        return  # in another cluster, or about to end
    else:
        actor, end = start_scheduler(run, detached=False)
    while not stop.wait(LOOK_SECONDS):
        if ray.wait([end], timeout=0)[0]:
            ray.kill(actor)  # it no longer schedules, but still has the name
            ray.get(end)
            return
