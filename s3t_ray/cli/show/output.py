"""Where the commands print: results to stdout, everything else to stderr.

Consoles are made at call time, because tests and pipes replace the streams. Text that came from a
user (ids, paths, errors) is never read as markup, and its control characters are escaped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import IO, TYPE_CHECKING

from s3t_ray.cli.show.units import printable
from s3t_ray.errors import S3TError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

PIPE_COLUMNS = 140
"""Width of tables outside a terminal, where rich would fold them at 80."""


def stdout_console() -> Console:
    return _console(sys.stdout, stderr=False)


def stderr_console() -> Console:
    return _console(sys.stderr, stderr=True)


def story_console(stderr: bool) -> Console:
    """For the demo, which prints rich markup."""
    return _console(sys.stderr if stderr else sys.stdout, stderr, markup=True)


def _console(stream: IO[str], stderr: bool, markup: bool = False) -> Console:
    from rich.console import Console

    folded = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, highlight=False, markup=markup, emoji=False, width=None if folded else PIPE_COLUMNS)


@contextmanager
def working(on: str) -> Iterator[None]:
    """Shows activity in a terminal while a library works; what the library prints goes to stderr."""
    with redirect_stdout(sys.stderr), stderr_console().status(on):
        yield


def print_json(report: BaseModel) -> None:
    """Print the JSON document of a `--json` call on stdout, unbuffered."""
    print_document(report.model_dump_json(indent=2))


def print_document(text: str) -> None:
    """Print `text` verbatim on stdout. If the reader has gone (`| head`), end quietly with exit code 1."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout again at exit; that must not print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def note(text: str) -> None:
    """Print one plain line on stderr."""
    stderr_console().print(printable(text), soft_wrap=True)


def print_error(error: S3TError) -> None:
    """Print the two lines of every error: what is wrong, and what to do."""
    from rich.text import Text

    console = stderr_console()
    console.print(Text.assemble(("error: ", "bold red"), printable(error.problem)), soft_wrap=True)
    console.print(Text.assemble(("fix: ", "bold green"), printable(error.fix)), soft_wrap=True)
