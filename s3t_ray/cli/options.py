"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="YAML file of the run, or the name of a ready config (`s3t configs`).")
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run: its folder, its s3:// or gs:// URI, or its YAML file.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; progress goes to stderr.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override one field of the config; can be repeated."),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster to use, as `ray.init` takes it; default: one on this machine."),
]
