"""Messages about a failed stage: one problem, one fix, and the location of the traceback."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from s3t_ray.errors import TrainError
from s3t_ray.runtime.stage_failures import MOST_CHARACTERS, explain, keep, original

TRACEBACK = "\x1b[36mray::Rank.train()\x1b[39m (pid=7)\n" + "  File deep.py, line 1, in deeper\n" * 20


def raised(cause: Exception) -> RayTaskError:
    """As `ray.get` raises it: an instance of the cause's class too."""
    task = RayTaskError("train", f"{TRACEBACK}{type(cause).__name__}: {cause}", cause, proctitle="x", pid=7, ip="::1")
    return task.as_instanceof_cause()


def test_an_error_of_ours_is_told_in_its_own_words() -> None:
    ours = TrainError("the loss is not a number at step 7", "lower optimizer.lr")
    failure = explain(raised(ours), lost=False)
    assert failure.told("node:/logs/x.txt") == (
        "the loss is not a number at step 7\n  fix: lower optimizer.lr\n  traceback: node:/logs/x.txt"
    )
    assert "deep.py" in failure.details and "\x1b" not in failure.details
    assert original(raised(ours)) is ours


@pytest.mark.parametrize(
    ("cause", "problem", "fix"),
    [
        (ValueError("shapes\n differ"), "ValueError: shapes differ", "read the traceback"),
        (MemoryError(), "MemoryError: MemoryError", "s3t plan"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device", "TMPDIR"),
    ],
)
def test_any_other_is_named_with_its_cause_and_what_helps(cause: Exception, problem: str, fix: str) -> None:
    failure = explain(raised(cause), lost=False)
    assert problem in failure.problem and fix in failure.fix
    assert len(failure.told(None).splitlines()) == 2


def test_a_lost_group_says_so_and_one_line_is_never_long() -> None:
    assert explain(ActorDiedError(), lost=True).problem.startswith("worker group lost: The actor died")
    long = explain(raised(ValueError("0.1 " * 9999)), lost=False)
    assert len(long.problem) <= MOST_CHARACTERS + len("ValueError: ")


def test_the_traceback_is_in_the_file_that_is_named(tmp_path: Path) -> None:
    failure = explain(raised(ValueError("x")), lost=False)
    named = keep(failure, tmp_path, "0123456789abcdef0123")
    assert named == f"{socket.gethostname()}:{tmp_path}/s3t-stage-0123456789abcdef.txt"
    assert "deep.py" in Path(named.partition(":")[2]).read_text()
    assert keep(failure, tmp_path / "gone", "0123") is None
