"""`s3t verify`: check every id and digest of a run, and replay stages to the bit."""

from __future__ import annotations

from typing import Annotated

import typer

from s3t_ray.cli.options import AddressOption, JsonOption, RunArgument


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Examples:\n$ s3t verify runs/alpaca\n$ s3t verify runs/alpaca --replay 3 --json")(verify)


def verify(
    run: RunArgument,
    replay: Annotated[
        int, typer.Option("--replay", min=0, metavar="N", help="Also train N live stages again and compare the bytes.")
    ] = 0,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Check that the live stages follow from the retained records.

    Exit code 8 when a proof does not hold. A replay on other hardware or
    library versions than a stage was trained with can give other bytes:
    then nothing is proved about that stage, and the exit code is 10.
    """
    from s3t_ray.audit.verify import verify as verify_run
    from s3t_ray.cli.show.live_progress import progress
    from s3t_ray.cli.show.output import print_json, stderr_console, stdout_console
    from s3t_ray.cli.show.show_proof import raise_unless_verified, verification_view
    from s3t_ray.cli.show.show_status import glyphs
    from s3t_ray.run.run import Run

    with Run.open(run, read_only=True) as opened, progress(stderr_console()) as display:
        verification = verify_run(opened, replay=replay, address=address, watch=display.note)
    if json:
        print_json(verification)
    else:
        console = stdout_console()
        console.print(verification_view(verification, glyphs(console)))
    raise_unless_verified(verification, "keep this report; each problem names the stage or slice to look at")
