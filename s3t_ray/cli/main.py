"""The `s3t` command: its subcommands, and how errors become exit codes.

Thin on purpose: a command parses, calls the runtime and prints. Nothing heavy (torch, Ray,
transformers, pyarrow, SQLAlchemy) is imported before the command that needs it runs, so help
and planning start fast.
"""

from __future__ import annotations

import logging
import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from s3t_ray import __version__
from s3t_ray.cli import (
    configs_command,
    delete_command,
    deletions_command,
    demo_command,
    keys_command,
    metrics_command,
    plan_command,
    read_commands,
    report_command,
    restore_command,
    serve_command,
    train_command,
    ui_command,
)
from s3t_ray.cli.exit_codes import INTERRUPTED, exit_codes_text
from s3t_ray.cli.proofs import (
    audit_command,
    certificate_command,
    check_command,
    head_command,
    key_command,
    verify_command,
    witness_command,
)
from s3t_ray.cli.show.output import note, print_document, print_error
from s3t_ray.errors import S3TError

_GOES_ON = ("train", "delete", "demo")


class Commands(TyperGroup):
    """Turns our errors into two lines and an exit code. All others are bugs and keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except S3TError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            resume = "; the same command resumes where it stopped" if ctx.invoked_subcommand in _GOES_ON else ""
            note(f"interrupted{resume}")
            raise typer.Exit(INTERRUPTED) from interrupt


app = typer.Typer(
    cls=Commands,
    name="s3t",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=f"Exit codes:\n{exit_codes_text()}",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_document(f"s3t_ray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Fine-tune a language model so that any record can be deleted from it exactly, provably and cheaply.

    Start with `s3t demo`, or with a ready config:
      s3t configs show llama-2-13b > my.yaml
      s3t plan my.yaml
      s3t train my.yaml
      s3t delete RUN --id record-17
    """


def _quiet_libraries() -> None:
    """Their progress bars and notices would hide a command's result."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers' loading bars too
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)


_quiet_libraries()
plan_command.add_to(app)
train_command.add_to(app)
delete_command.add_to(app)
deletions_command.add_to(app)
read_commands.add_to(app)
serve_command.add_to(app)
metrics_command.add_to(app)
ui_command.add_to(app)
report_command.add_to(app)
verify_command.add_to(app)
audit_command.add_to(app)
certificate_command.add_to(app)
check_command.add_to(app)
head_command.add_to(app)
witness_command.add_to(app)
restore_command.add_to(app)
demo_command.add_to(app)
configs_command.add_to(app)
keys_command.add_to(app)
key_command.add_to(app)


if __name__ == "__main__":
    app()
