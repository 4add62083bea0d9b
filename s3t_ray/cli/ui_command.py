"""`s3t ui`: the web page of a run, without a service."""

from __future__ import annotations

import os
import secrets
from typing import Annotated

import typer

from s3t_ray.cli.options import RunArgument


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Examples:\n$ s3t ui runs/alpaca\n$ s3t ui runs/alpaca --ask --port 8001")(ui)


def ui(
    run: RunArgument,
    ask: Annotated[
        bool, typer.Option("--ask", help="Load the base model, so that the page can send prompts to it and to the run.")
    ] = False,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8001,
) -> None:
    """Show a run in the browser: shards, deletions and their certificates, and a form to delete.

    Prints an address with a token after the #, which browsers do not send. The page exchanges it for a cookie. If
    S3T_SERVE_TOKEN and S3T_DELETE_TOKEN are set, sign in with these instead.
    Deletions made here are durable immediately; `s3t train` or a service completes them.
    """
    import uvicorn

    from s3t_ray.cli.show.output import note, print_document
    from s3t_ray.run.run import Run
    from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, SERVE_TOKEN, Tokens
    from s3t_ray.serve.page.page_models import OwnModel
    from s3t_ray.serve.page.page_routes import page_app
    from s3t_ray.serve.page.page_sessions import Access
    from s3t_ray.serve.page.page_token import OneToken
    from s3t_ray.serve.page.run_desk import RunDesk

    address = f"http://{host}:{port}/"
    if os.environ.get(SERVE_TOKEN) or os.environ.get(DELETE_TOKEN):
        access: Access = Tokens.from_environment()
        shown = address
    else:
        token = secrets.token_urlsafe(32)
        access, shown = OneToken(token), f"{address}#token={token}"
    with Run.open(run) as opened:
        name = opened.row.name  # refuses a run whose data was never read in, before a server starts
        model = OwnModel(opened) if ask else None
        print_document(shown)
        note(f"serving the page of run {name!r}; stop with Ctrl-C")
        try:
            uvicorn.run(page_app(RunDesk(opened, model), access), host=host, port=port, log_level="warning")
        finally:
            if model is not None:
                model.close()
