"""Explains why a stage failed in a few lines: the problem and the fix. The traceback goes to a file.

In: the error that Ray raised. Out: two or three short lines. Ray's own text is about 25 lines of traceback with colour
codes, and truncates the cause.
"""

from __future__ import annotations

import errno
import re
import socket
import traceback
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError, RayTaskError

from s3t_ray.errors import S3TError

MOST_CHARACTERS = 500
"""Maximum length of a line, because some errors print entire tensors."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_UNKNOWN = "read the traceback; if this machine is not the cause, report it as a bug in s3t_ray"
_MEMORY = (
    "use a GPU or a node with more memory, or start a run with a smaller engine.micro_batch_tokens or a quantized "
    "base (model.quantize); `s3t plan` shows the memory that a rank needs"
)
_DISK = "free space in TMPDIR of that node, or set TMPDIR to a larger disk (docs/cluster.md, Scratch space)"
_LOST = "check `ray logs` of its node: out of memory, a lost node, or a crash in a library. The stage is tried again"


@dataclass(frozen=True)
class StageFailure:
    """A failure as reported to the user, with its details."""

    problem: str
    fix: str
    details: str
    """The traceback from the rank."""

    def told(self, file: str | None) -> str:
        """The text for log, status and ledger. `file`: the file with the details."""
        where = f"\n  traceback: {file}" if file else ""
        return f"{self.problem}\n  fix: {self.fix}{where}"


def original(error: BaseException) -> BaseException:
    """The original error from the actor, without Ray's wrappers. Ray's own errors are returned unchanged."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException) and error.cause is not error:
        error = error.cause
    return error


def explain(error: RayError, lost: bool) -> StageFailure:
    """The failure for an error. `lost`: the worker group was lost with the stage."""
    cause = original(error)
    details = _COLOUR.sub("", str(error))
    if not details.strip():
        details = "".join(traceback.format_exception_only(cause))
    if lost:
        return StageFailure(f"worker group lost: {_one_line(cause)}", _LOST, details)
    if isinstance(cause, S3TError):
        return StageFailure(cause.problem, cause.fix, details)
    return StageFailure(f"{type(cause).__name__}: {_one_line(cause)}", _fix(cause), details)


def keep(failure: StageFailure, folder: Path, stage_id: str) -> str | None:
    """Write the details to a file on this node and return `HOST:PATH`; None if it cannot be written."""
    path = folder / f"s3t-stage-{stage_id[:16]}.txt"
    try:
        path.write_text(f"{failure.problem}\n\n{failure.details}\n")
    except OSError:
        return None
    return f"{socket.gethostname()}:{path}"


def _one_line(cause: BaseException) -> str:
    """The error's text on one line, without colour codes, at most MOST_CHARACTERS long."""
    lines = [line.strip() for line in _COLOUR.sub("", str(cause)).splitlines()]
    text = " ".join(line for line in lines if line) or type(cause).__name__
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 4]} ..."


def _fix(cause: BaseException) -> str:
    if isinstance(cause, MemoryError) or "OutOfMemory" in type(cause).__name__:
        return _MEMORY
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return _DISK
    return _UNKNOWN
