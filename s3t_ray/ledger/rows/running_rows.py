"""Stages in training now, recorded by the scheduler for observers of the run.

They are not authoritative: they are overwritten every few seconds, and those of a dead scheduler stay until the next
one writes its own. `at` says how old they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select

from s3t_ray.ledger.tables import RUNNING
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import NotedStage, RunningStage


def note(tx: Transaction, stages: Iterable[RunningStage]) -> None:
    """Record that exactly these stages are in training."""
    tx.connection.execute(_FORGET)
    rows = [
        {
            "stage": stage.stage_id,
            "shard": stage.shard,
            "slices": json.dumps(stage.slices),
            "worker_group": stage.group,
            "step": stage.step,
            "steps": stage.steps,
            "loss": stage.loss,
            "tokens_per_second": stage.tokens_per_second,
            "at": tx.now,
        }
        for stage in stages
    ]
    if rows:
        tx.connection.execute(_ADD, rows)


def read(connection: Connection) -> tuple[NotedStage, ...]:
    """The recorded stages, by worker group."""
    return tuple(
        NotedStage(
            RunningStage(
                row.stage,
                row.shard,
                tuple(json.loads(row.slices)),
                row.worker_group,
                row.step,
                row.steps,
                row.loss,
                row.tokens_per_second,
            ),
            row.at,
        )
        for row in connection.execute(_READ)
    )


_FORGET = delete(RUNNING)
_ADD = insert(RUNNING)
_READ = select(RUNNING).order_by(RUNNING.c.worker_group, RUNNING.c.stage)
