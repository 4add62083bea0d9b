"""A command as a Ray job: the same function, arguments and messages as on the command line.

In: the command and the arguments of the script that `ray job submit` runs. A job's output is a file,
so progress comes in plain lines. `ray job stop` sends SIGTERM and kills 3 s later: the job says at
once what that means. Nothing is lost by it: what was published stays, and the next job goes on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import typer

from s3t_ray.cli.main import Commands

STOPPED = 128 + signal.SIGTERM
"""Exit code of a job that was stopped, as shells count it."""

_MESSAGE = b"stopped; nothing published is lost: submit the same job again and it goes on where it stopped\n"


def run_as_job(command: Callable[..., None]) -> None:
    """Run `command` with the arguments of this process; ends the process with the exit codes of `s3t`."""
    signal.signal(signal.SIGTERM, _stop)
    app = typer.Typer(
        cls=Commands, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
    )
    app.callback()(_alone)
    app.command()(command)
    app(args=[command.__name__, *sys.argv[1:]], prog_name="jobs")


def _alone() -> None:
    """One command, under its own name, so that `Commands` sees it and its errors."""


def _stop(_number: int, _frame: object) -> None:
    os.write(2, _MESSAGE)  # not print: a signal may come in the middle of one
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end that has begun is not ended again
    raise SystemExit(STOPPED)
