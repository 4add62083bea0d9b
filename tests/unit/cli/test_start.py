"""The `s3t` process itself: its imports at start, its help, and its exit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from s3t_ray import __version__, errors
from s3t_ray.cli.exit_codes import exit_codes, exit_codes_markdown, exit_codes_text
from s3t_ray.cli.main import app

HEAVY = ("torch", "ray", "transformers", "datasets", "pyarrow", "sqlalchemy", "peft", "deepspeed", "pandas")
PLAN = ("plan", "llama-2-13b", "--records", "52002", "--tokens-per-record", "182")
COMMANDS = tuple(get_command(app).commands)  # type: ignore[attr-defined]
ANSWERS = tuple(name for name in COMMANDS if name not in ("serve", "ui", "witness", "metrics"))  # they answer over HTTP

_THEN_TELL_MODULES = """
import sys
from s3t_ray.cli.main import app
try:
    app({args!r})
except SystemExit as end:
    assert not end.code, end.code
sys.stderr.write(" ".join(name for name in {heavy!r} if name in sys.modules))
"""


@pytest.mark.parametrize("args", [("--help",), ("delete", "--help"), ("configs",), PLAN, (*PLAN, "--json")])
def test_what_needs_no_model_imports_none_of_the_heavy_packages(args: tuple[str, ...]) -> None:
    program = _THEN_TELL_MODULES.format(args=list(args), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_json(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert f"$ s3t {command}" in result.stdout
    assert ("--json" in result.stdout) == (command in ANSWERS)


def test_the_main_help_names_every_command_and_exit_code() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).stdout
    for command in COMMANDS:
        assert f" {command} " in text
    assert exit_codes_text().splitlines()[0].strip() in text


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"s3t_ray {__version__}\n"


def test_an_unknown_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["plan", "demo", "--nope"]).exit_code == 2


def test_every_error_of_ours_has_a_row_and_codes_are_told_apart() -> None:
    rows = exit_codes()
    for kind in errors.S3TError.__subclasses__():
        if kind.__module__ == errors.__name__:
            assert [row.code for row in rows if row.name == kind.__name__] == [kind.exit_code]
    assert [row.code for row in rows] == sorted(row.code for row in rows)
    families = {kind.__name__ for kind in errors.S3TError.__subclasses__()}  # a special case has its family's code
    ours = [row.code for row in rows if row.name in families]
    assert len(ours) > 5 and len(set(ours)) == len(ours)
    assert exit_codes_markdown().count("\n") == len(rows) + 2


@pytest.mark.parametrize("args", [("configs", "show", "llama-2-13b"), ("configs",)])
def test_a_reader_that_goes_away_ends_the_command_quietly(args: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "s3t_ray.cli.main", *args]
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_bug_shows_its_traceback() -> None:
    program = (
        "import s3t_ray.config.load as load; del load.load_config\n"
        "from s3t_ray.cli.main import app; app(['train', 'x'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "ImportError" in done.stderr
