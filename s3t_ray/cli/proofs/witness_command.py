"""`s3t witness`: a third party's process that checks that a log in the C2SP formats only ever grows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3t_ray.errors import ConfigError

witness_app = typer.Typer(
    name="witness",
    no_args_is_help=True,
    help="Witness logs: cosign a checkpoint only if it extends everything seen before.",
    epilog="Examples:\n$ s3t witness init my-witness --name witness.example.com\n"
    "$ s3t witness serve my-witness --log runs.example/alpaca+c74f20a3+ARpc...",
)

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder of the witness, with its key and state.")
]


def add_to(app: typer.Typer) -> None:
    app.add_typer(witness_app)


@witness_app.command(epilog="Example:\n$ s3t witness init my-witness --name witness.example.com")
def init(
    folder: FolderArgument,
    name: Annotated[str, typer.Option("--name", help="Name in cosignatures, such as witness.example.com.")],
) -> None:
    """Make a witness in a new folder, and print its public key for those who trust it.

    Run it on a machine that the log's operator does not control. Never restore the folder from an old copy:
    a witness that has forgotten what it saw can be shown another history.
    """
    from s3t_ray.cli.show.output import print_document
    from s3t_ray.tlog.witness_folder import create

    print_document(str(create(folder, name)))


@witness_app.command(epilog="Example:\n$ s3t witness serve my-witness --log-file logs.txt --port 8080")
def serve(
    folder: FolderArgument,
    log: Annotated[
        list[str] | None, typer.Option("--log", metavar="KEY", help="Public key of a log to watch; can be repeated.")
    ] = None,
    log_file: Annotated[
        Path | None, typer.Option("--log-file", metavar="FILE", help="File with one public key of a log per line.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Answer `add-checkpoint` requests (c2sp.org/tlog-witness) until stopped.

    Works for any log that publishes checkpoints. `s3t head RUN --key` prints the key of a run's log. A run submits
    its checkpoints to the witnesses in its config (`log.witnesses`).
    """
    import uvicorn

    from s3t_ray.cli.show.output import note
    from s3t_ray.serve.witness_http import witness_app as application
    from s3t_ray.tlog.signed_note import VerifierKey
    from s3t_ray.tlog.witness_folder import open_witness

    texts = [*(log or ()), *(_lines(log_file) if log_file else ())]
    if not texts:
        raise ConfigError("the witness has no log to watch", "give each log's public key with --log or --log-file")
    witness = open_witness(folder, [VerifierKey.parse(text) for text in texts])
    note(f"witness {witness.key} watches {len(texts)} logs at http://{host}:{port}")
    uvicorn.run(application(witness), host=host, port=port, log_level="warning", timeout_keep_alive=30)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--log-file {path} cannot be read: {error}", "name a text file, one key per line") from error
    return [line for line in lines if line and not line.startswith("#")]
