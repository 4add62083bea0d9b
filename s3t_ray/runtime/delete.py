"""The second half of a deletion: waits until it is pruned, purged, healed and certified.

The scheduler completes it; this module starts one if none is running. `run/deletion.py` has the first half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from s3t_ray.errors import TrainError
from s3t_ray.ledger.values import Fenced
from s3t_ray.run.reports import Status
from s3t_ray.run.run import Run
from s3t_ray.runtime.connect import check_can_heal, connected
from s3t_ray.runtime.driver import drive, follow, scheduler_is_active


def settle(
    run: Run,
    request_id: str,
    *,
    address: str | None = None,
    watch: Callable[[Status], None] = lambda state: None,
) -> Status:
    """Wait until an accepted deletion is restored. Returns the status at that time.

    Uses the active scheduler of this run, wherever it is, or starts one. Raises TrainError if the
    scheduler gave up on a stage, ClusterError if everything is erased but no worker group has room to
    heal.
    """

    def restored(state: Status) -> bool:
        return any(d.request_id == request_id and d.state == "restored" for d in state.deletions)

    while True:
        while scheduler_is_active(run):
            state = follow(run, watch=watch, until=restored)
            if state is not None:
                return state
        try:
            return _settle_here(run, restored, address, watch)
        except Fenced:
            continue  # another process has started to schedule this run and continues the deletion


def _settle_here(
    run: Run, restored: Callable[[Status], bool], address: str | None, watch: Callable[[Status], None]
) -> Status:
    last: list[Status] = []

    def look(state: Status) -> None:
        last[:] = [state]
        watch(state)

    with connected(address) as grows:

        def ended(snapshot: Any, state: Status) -> bool:
            if restored(state) or snapshot.idle:
                return True
            if all(deletion.state == "purged" for deletion in state.deletions if deletion.state != "restored"):
                check_can_heal(run.config, grows)
            return False

        snapshot = drive(run, detached=address is not None, watch=look, until=ended)
    if not restored(last[-1]) and snapshot.given_up:
        worst = snapshot.given_up[0]
        erased = not any(failure.kind == "purge" for failure in snapshot.given_up)
        raise TrainError(
            f"{'the records are erased, but healing stopped' if erased else 'not everything could be erased'}: "
            f"{worst.title} failed {worst.attempts} times: {worst.error}",
            "fix the cause and run `s3t train` with the run's config",
        )
    return last[-1]
