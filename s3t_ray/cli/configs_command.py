"""`s3t configs`: list the ready configs, or print one to start from."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Annotated

import typer

from s3t_ray.cli.options import JsonOption
from s3t_ray.errors import ConfigError


@dataclass(frozen=True)
class ReadyConfig:
    name: str
    about: str


configs_app = typer.Typer(
    name="configs",
    invoke_without_command=True,
    epilog="Examples:\n$ s3t configs\n$ s3t configs show llama-2-13b > my.yaml",
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(configs_app)


@configs_app.callback()
def configs(ctx: typer.Context, json: JsonOption = False) -> None:
    """List the ready configs, or `show` one to start from."""
    if ctx.invoked_subcommand is not None:
        return
    from s3t_ray.cli.show.output import print_document, stdout_console
    from s3t_ray.cli.show.show_status import plain_table
    from s3t_ray.config.load import ready_configs

    summaries = [_summary(name) for name in ready_configs()]
    if json:
        print_document(json_format.dumps([asdict(summary) for summary in summaries], indent=2))
        return
    table = plain_table("name", "what it is")
    for summary in summaries:
        table.add_row(summary.name, summary.about)
    stdout_console().print(table)


@configs_app.command(epilog="Example:\n$ s3t configs show llama-2-13b > my.yaml")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `s3t configs` lists.")],
    json: JsonOption = False,
) -> None:
    """Print a ready config with its comments; with --json, its resolved values."""
    from s3t_ray.cli.show.output import print_document, print_json

    text = _text(name)
    if json:
        from s3t_ray.config.load import parse_config

        print_json(parse_config(text, f"ready config {name}"))
    else:
        print_document(text.removesuffix("\n"))


def _summary(name: str) -> ReadyConfig:
    """Name, and the first line of the comment at the top of the file."""
    first = _text(name).split("\n", 1)[0]
    return ReadyConfig(name, first.lstrip("# ") if first.startswith("#") else "")


def _text(name: str) -> str:
    """The file of a ready config. Raises ConfigError for an unknown name."""
    from s3t_ray.config.load import ready_configs, ready_text

    names = ready_configs()
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
        raise ConfigError(f"no ready config is named {name!r}", hint)
    return ready_text(name)
