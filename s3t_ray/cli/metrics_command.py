"""`s3t metrics`: Prometheus metrics of runs, read from their ledgers until stopped."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from typing import Annotated

import typer

from s3t_ray.errors import ConfigError


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example:\n$ s3t metrics runs/alpaca s3://bucket/runs/dolly --host 0.0.0.0")(metrics)


def metrics(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="The runs: folders, URIs or YAML files.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on.")] = 9464,
) -> None:
    """Report deletions and depths to Prometheus from the ledger, even when no scheduler is running.

    A scheduler's own metrics disappear when it ends. Run this command near your database so that an alert on the
    oldest unfinished deletion (cluster/prometheus-alerts.yaml) still works. It needs neither Ray nor keys.
    """
    from s3t_ray.cli.show.output import note
    from s3t_ray.run.run import Run
    from s3t_ray.serve.ledger_exporter import start_exporter

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as service managers end a service
    with ExitStack() as opened:
        found = [opened.enter_context(Run.open(run)) for run in runs]
        names = [run.row.name for run in found]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"{names.count(name)} of these runs are named {name!r}, and metrics identify runs by name",
                    "start one `s3t metrics` for each of them, on separate ports",
                )
        listening = start_exporter(found, host, port)
        note(f"metrics of {', '.join(names)} at http://{host}:{listening}/metrics")
        threading.Event().wait()
