"""`s3t status`, `s3t eval`, `s3t generate`, `s3t export`: look at a run, evaluate it, prompt it, export an adapter."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from s3t_ray.cli.options import AddressOption, JsonOption, RunArgument
from s3t_ray.errors import ConfigError

if TYPE_CHECKING:
    from s3t_ray.run.reports import Status
    from s3t_ray.run.run import Run

SECONDS_BETWEEN_LOOKS = 1.0


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Examples:\n$ s3t status runs/alpaca\n$ s3t status runs/alpaca --watch")(status)
    app.command("eval", epilog="Example:\n$ s3t eval runs/alpaca --limit 500")(evaluate)
    app.command(epilog='Example:\n$ s3t generate runs/alpaca "Name three primary colours." --max-new-tokens 64')(
        generate
    )
    app.command(
        epilog="Examples:\n$ s3t export runs/alpaca adapter\n$ s3t export runs/alpaca --shard 0 adapter-0\n"
        "$ s3t export runs/alpaca adapters --follow vllm --server http://127.0.0.1:8000"
    )(export)


def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Keep refreshing until the run is settled.")] = False,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="Show only deletions that are past their due date and not purged.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show a run: live depth of every sequence, stages, deletions, failures. Needs no cluster.

    Each sequence is shown as its order of slices, with one block per slice.
    Filled blocks are its live depth.
    """
    from s3t_ray.cli.show.output import print_json, stdout_console
    from s3t_ray.cli.show.show_status import glyphs, status_view
    from s3t_ray.run.run import Run
    from s3t_ray.run.status import status as look

    with Run.open(run) if watch else Run.open_to_look(run) as opened:
        seen = _watch_until_settled(opened) if watch else look(opened)
    if overdue:
        seen = seen.model_copy(update={"deletions": tuple(each for each in seen.deletions if each.overdue)})
    if json:
        print_json(seen)
    else:
        console = stdout_console()
        console.print(status_view(seen, glyphs(console)))


def _watch_until_settled(run: Run) -> Status:
    from s3t_ray.cli.show.live_progress import progress
    from s3t_ray.cli.show.output import stderr_console
    from s3t_ray.run.status import status as look

    pause = Event()
    with progress(stderr_console()) as display:
        while True:
            seen = look(run)
            display.watch(seen)
            if seen.settled:
                return seen
            pause.wait(SECONDS_BETWEEN_LOOKS)


def evaluate(
    run: RunArgument,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use the first N held-out records.")] = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate the ensemble on the held-out records, live and at each depth.

    On a cluster (`--address`, or in a Ray job) an actor with the resources of one rank loads the model.
    """
    from s3t_ray.cli.show.output import note, print_json, stdout_console, working
    from s3t_ray.cli.show.show_reports import evaluation_view
    from s3t_ray.ensemble.in_process import evaluate as evaluate_run
    from s3t_ray.run.run import Run
    from s3t_ray.runtime.model_host import model_host

    with Run.open(run) as opened, working("evaluating"), model_host(opened, address, note) as host:
        evaluation = host.call(evaluate_run, limit=limit)
    if json:
        print_json(evaluation)
    else:
        stdout_console().print(evaluation_view(evaluation))


def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="Instruction to answer; - is stdin.")],
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Maximum length of the answer, in tokens.")
    ] = 128,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="Sampling temperature; 0: always the most likely token.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed for sampling, if the temperature is above 0.")] = 0,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Answer a prompt with the live ensemble. Prints only the text on stdout."""
    from s3t_ray.cli.show.output import note, print_document, print_json, working
    from s3t_ray.cli.show.units import duration
    from s3t_ray.ensemble.in_process import generate as generate_text
    from s3t_ray.run.run import Run
    from s3t_ray.runtime.model_host import model_host

    text = sys.stdin.read() if prompt == "-" else prompt
    with Run.open(run) as opened, working("generating"), model_host(opened, address, note) as host:
        generation = host.call(generate_text, text, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    if json:
        print_json(generation)
        return
    print_document(generation.text)
    depths = ", ".join(str(depth) for depth in generation.depths)
    note(f"depths {depths}; version {generation.version}; {duration(generation.seconds)}")


def export(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT", help="New folder for the adapter in PEFT format; with --follow, for all adapters."
        ),
    ] = None,
    shard: Annotated[
        int | None, typer.Option("--shard", min=0, help="Export this shard's deepest live adapter alone.")
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="The mean of all live shards as one adapter (default for text).")
    ] = False,
    follow: Annotated[
        str | None,
        typer.Option("--follow", metavar="vllm|folder", help="Keep an external server up to date until stopped."),
    ] = None,
    server: Annotated[str | None, typer.Option("--server", help="Address of the vLLM server.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the follower; default: the server or folder.")
    ] = None,
    unfollow: Annotated[
        str | None,
        typer.Option("--unfollow", metavar="NAME", help="Remove this follower, whose server is gone."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write the live model as a standard PEFT folder. The run remembers it, so that a deletion erases it.

    By default, all live shards are merged into one adapter, their mean. In our measurements it kept 95% or more of what
    the ensemble gains (docs/claims.md). Models with a task head cannot be merged: choose one with --shard.

    With --follow the command keeps running. It exports each shard's live adapter below OUT and loads it into the
    server. It unloads and erases adapters that a deletion makes stale; the deletion is pruned only after that. This
    command and the server must see OUT under the same path.
    """
    from s3t_ray.cli.export_follow import follow as keep_following
    from s3t_ray.cli.export_follow import unfollow as let_go
    from s3t_ray.cli.show.output import print_json, stdout_console, working
    from s3t_ray.cli.show.show_reports import export_view
    from s3t_ray.ensemble.peft_export import export as export_shard
    from s3t_ray.run.run import Run

    if unfollow is not None:
        with Run.open(run) as opened:
            let_go(opened, unfollow)
        return
    if out is None:
        raise typer.BadParameter("name the folder to write to: OUT")
    if follow is not None:
        if shard is not None or merged:
            raise ConfigError("--follow exports every live shard", "leave --shard and --merged out")
        with Run.open(run) as opened:
            keep_following(opened, follow, out, server, name)
        return
    if shard is not None and merged:
        raise ConfigError("an export is either one shard or all shards merged", "give either --shard or --merged")
    with Run.open(run) as opened, working("exporting"):
        exported = export_shard(opened, shard, out)
    if json:
        print_json(exported)
    else:
        stdout_console().print(export_view(exported))
