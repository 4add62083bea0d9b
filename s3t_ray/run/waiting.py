"""What a run's worker groups wait for. The scheduler records it in the run's history, for `s3t status`."""

from __future__ import annotations

import json

from s3t_ray.run.run import Run

WAITING = "waiting"
"""Kind of these events."""


def note_waiting(run: Run, waits_for: str | None) -> None:
    """Record it; None: they no longer wait. The run's scheduler calls this on every change."""
    run.ledger.add_event(WAITING, None, {"for": waits_for, "epoch": run.ledger.lease().epoch})


def noted_waiting(run: Run) -> str | None:
    """The last record, if the last scheduler wrote it; None: nothing is known to wait."""
    notes = run.ledger.events(kinds={WAITING})
    if not notes:
        return None
    last = json.loads(notes[-1].detail)
    return last["for"] if last["epoch"] == run.ledger.lease().epoch else None
