"""How the tests of `audit` tamper with a run, and the reports that they expect."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from s3t_ray.audit.audit import audit
from s3t_ray.ledger.values import StageRow, StageState
from s3t_ray.run.run import Run


def problems(run: Run, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    return audit(run, known=known).problems


def found(run: Run, part: str) -> None:
    told = problems(run)
    assert any(part in line for line in told), told


def sql(run: Run, *statements: str, values: tuple[object, ...] = ()) -> None:
    """Edit the ledger behind the run's back."""
    connection = sqlite3.connect(Path(run.location.storage_uri) / "ledger.db", isolation_level=None)
    try:
        for statement in statements:
            assert connection.execute(statement, values).rowcount != 0, statement
    finally:
        connection.close()


def writable(run: Run) -> Run:
    """The same run, opened as its owner does: an audit's own handle cannot write. Close it, or use it in a `with`."""
    return Run.open(root(run))


def live(run: Run) -> list[StageRow]:
    return list(run.ledger.stages(state=StageState.LIVE))


def root(run: Run) -> Path:
    return Path(run.location.storage_uri)
