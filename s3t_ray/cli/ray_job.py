"""A command as a Ray job: the same function, arguments and messages as on the command line.

In: the command and the arguments of the script that `ray job submit` runs. A job's output is a file, so progress
comes in plain lines. `ray job submit` always exits with 1 on failure, so the job's last line says its exit code. Ray
keeps that line in the job's message too (`ray job status`). `ray job stop` sends SIGTERM and kills the job 3 s later,
so the job immediately prints what that means. Nothing is lost: published stages stay, and the next job resumes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import typer

from s3t_ray.cli.exit_codes import STOPPED, meaning_of
from s3t_ray.cli.main import Commands
from s3t_ray.cli.show.output import note
from s3t_ray.config.location import check_job_folder

_MESSAGE = b"stopped; nothing published is lost: submit the same job again to resume where it stopped\n"


def run_as_job(command: Callable[..., None]) -> None:
    """Run `command` with the arguments of this process; ends the process with the exit codes of `s3t`.

    Refuses to run in a working folder that was submitted with keys or a run in it.
    """
    signal.signal(signal.SIGTERM, _stop)

    @wraps(command)  # also copies the signature, from which Typer reads the options
    def checked(*arguments: object, **options: object) -> None:
        check_job_folder(Path.cwd())
        command(*arguments, **options)

    app = typer.Typer(
        cls=Commands, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
    )
    app.callback()(_alone)
    app.command()(checked)
    try:
        app(args=[command.__name__, *sys.argv[1:]], prog_name="jobs")
    except SystemExit as end:
        if end.code:
            note(f"exit code {end.code} ({meaning_of(end.code)})")
        raise


def _alone() -> None:
    """Keeps the single command a named command, so that `Commands` handles its errors."""


def _stop(_number: int, _frame: object) -> None:
    os.write(2, _MESSAGE)  # not print, which the signal may have interrupted
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # do not interrupt the shutdown in progress
    raise SystemExit(STOPPED)
