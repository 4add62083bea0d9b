"""What a run's worker groups wait for. The scheduler notes it in the run's history, for `s3t status`."""

from __future__ import annotations

import json

from s3t_ray.run.run import Run

WAITING = "waiting"
"""Kind of these events."""


def note_waiting(run: Run, waits_for: str | None) -> None:
    """Note it; None: they no longer wait. Called by the run's scheduler when it changes."""
    run.ledger.add_event(WAITING, None, {"for": waits_for, "epoch": run.ledger.lease().epoch})


def noted_waiting(run: Run) -> str | None:
    """What the last note says, if it is of the last scheduler; None: nothing waits, as far as is known."""
    notes = run.ledger.events(kinds={WAITING})
    if not notes:
        return None
    last = json.loads(notes[-1].detail)
    return last["for"] if last["epoch"] == run.ledger.lease().epoch else None
