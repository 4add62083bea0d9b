"""What each exit code of `s3t` means: the one table behind `s3t --help` and the documentation.

Derived from the classes in `s3t_ray.errors`, so that a new error cannot be left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import fill

from s3t_ray import errors

INTERRUPTED = 130
"""128 + SIGINT, as shells count it."""

STOPPED = 143
"""128 + SIGTERM: a Ray job that was stopped."""


@dataclass(frozen=True)
class ExitCode:
    code: int
    name: str
    meaning: str


def exit_codes() -> tuple[ExitCode, ...]:
    """All exit codes, ascending."""
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.S3TError)]
    named = [
        ExitCode(kind.exit_code, kind.__name__, (kind.__doc__ or "").split("\n")[0])
        for kind in ours
        if kind.__base__ is errors.S3TError  # a subclass exits with the code of its parent
    ]
    rest = [
        ExitCode(0, "done", "Everything asked for is done."),
        ExitCode(1, "bug", "A bug in s3t_ray, with a traceback; or the reader of the output closed it."),
        ExitCode(2, "usage", "The command line is wrong: a missing argument, an unknown option."),
        ExitCode(INTERRUPTED, "interrupted", "Stopped with Ctrl-C; the same command resumes where it stopped."),
        ExitCode(STOPPED, "stopped", "A Ray job was stopped; the same job resumes where it stopped."),
    ]
    return tuple(sorted((*named, *rest), key=lambda row: (row.code, row.name)))


def meaning_of(code: object) -> str:
    """The names of what ends with `code`, as in "ConfigError, usage"; "unknown" for any other code."""
    return ", ".join(row.name for row in exit_codes() if row.code == code) or "unknown"


def exit_codes_markdown() -> str:
    """The table as Markdown, for the documentation."""
    rows = "".join(f"| {row.code} | {row.name} | {row.meaning} |\n" for row in exit_codes())
    return f"| code | name | meaning |\n|---|---|---|\n{rows}"


def exit_codes_text() -> str:
    """The table as lines of at most 76 characters, for the main help."""
    meanings: dict[int, list[str]] = {}
    for row in exit_codes():
        meanings.setdefault(row.code, []).append(row.meaning)
    return "\n".join(
        fill(" ".join(meaning), 76, initial_indent=f"{code:>3}  ", subsequent_indent=" " * 5)
        for code, meaning in meanings.items()
    )
