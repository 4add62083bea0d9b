"""Makes the disk refuse a life's durable steps: full, or with an I/O error, once or from then on.

In: prepared `Crashes`. Out: a verdict: the life ended with an error of ours that says what to do, each deletion that it
committed has been acknowledged, and once the disk is well again every promise is kept.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError

from s3t_ray.config.location import locate
from s3t_ray.errors import S3TError
from s3t_ray.ledger.ledger import Ledger
from tests.faults.runtime import life
from tests.faults.runtime.crash import Crashes, Point, Tell, Verdict, in_child
from tests.faults.runtime.moments import Moments

_WRITING = ("mkdir", "create", "write", "open", "link")
_CHANGING = (*_WRITING, "fsync", "rename", "unlink", "rmdir", "truncate")


@dataclass(frozen=True)
class Failure:
    """What the disk refuses from the point on, with which error."""

    operations: tuple[str, ...]
    code: int
    commit: str
    """What the ledger's driver says where it refuses a commit."""
    once: bool = False


STORAGE_FULL = Failure(_WRITING, errno.ENOSPC, "")
"""What erases or renames goes on."""
ALL_FULL = Failure((*_WRITING, "commit"), errno.ENOSPC, "database or disk is full")
"""The same where the ledger lies on that disk too."""
ERROR_ONCE = Failure((*_CHANGING, "commit"), errno.EIO, "disk I/O error", once=True)
"""One step fails; the next would not."""
ERROR_LASTING = Failure((*_CHANGING, "commit"), errno.EIO, "disk I/O error")
"""Nothing can be written any more."""


def judge_failing(crashes: Crashes, point: Point, failure: Failure) -> Verdict:
    """Make the disk fail at the point: the life succeeds or ends with one of our errors. Then repair and check."""
    began = time.monotonic()
    after, live = life.PHASES[point.phase]
    crashes.restore(after or "")
    first = in_child(lambda tell: _fail(crashes, tell, live, point.number, failure))
    problems = [f"ended with {first.code}: {first.lines[-1:]}"] if first.code else []
    problems += crashes.check(first.receipts)
    return Verdict(point, None, tuple(problems), time.monotonic() - began)


def _fail(crashes: Crashes, tell: Tell, live: life.Phase, number: int, failure: Failure) -> None:
    left, failing = number, True
    before = _deletions(crashes)

    def refuse(operation: str, path: str) -> None:
        nonlocal left, failing
        left -= 1
        if left >= 0 or not failing or operation not in failure.operations:
            return
        if path.startswith("exported") and operation != "unlink":
            return  # written by the life itself, which stands for `s3t export` there
        failing = not failure.once
        if operation == "commit":
            raise OperationalError("COMMIT", {}, sqlite3.OperationalError(failure.commit))
        raise OSError(failure.code, os.strerror(failure.code), path)

    said: list[str] = []

    def acknowledge(line: str) -> None:
        said.append(line)
        tell(line)

    Moments(crashes.place, refuse).watch()
    try:
        live(crashes.place, acknowledge)
    except S3TError as error:
        assert error.fix, f"no word on what to do: {error.problem}"
        tell(f"refused {type(error).__name__}: {error.problem}")
    failing = False
    told = {line.split()[2] for line in said if line.startswith("receipt ")}
    silent = _deletions(crashes) - before - told
    assert not silent, f"committed, and no receipt was given: {sorted(silent)}"


def _deletions(crashes: Crashes) -> set[str]:
    """Ids of the deletions in the ledger; none if the run was not started."""
    try:
        with closing(Ledger.open(locate(life.config_of(crashes.place)).ledger_url)) as ledger:
            return {row.receipt.request_id for row in ledger.deletions()}
    except S3TError:
        return set()
