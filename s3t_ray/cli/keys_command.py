"""`s3t keys`: make a run's keys in advance, for a Kubernetes Secret or another node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3t_ray.cli.options import JsonOption


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n$ s3t keys alpaca.keys\n$ kubectl create secret generic s3t-keys --from-file=alpaca.keys"
    )(keys)


def keys(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder for the keys, on a permanent disk.")],
    json: JsonOption = False,
) -> None:
    """Make the keys of a run in FOLDER and print their fingerprint. Existing keys are not changed.

    A run makes its own keys. Use this command if you need them first, for example for a Kubernetes Secret.
    """
    from s3t_ray.cli.show.output import note, print_document, print_json
    from s3t_ray.config.memory_folders import check_keys_last
    from s3t_ray.ledger.keys import Keys
    from s3t_ray.run.reports import KeysReport

    made = not Keys.exist(folder)
    if made:
        check_keys_last(folder, None)
    found = Keys.load_or_create(folder)
    note(
        f"{'made keys in' if made else 'keys already exist in'} {folder.absolute()}: back them up, apart from the "
        "run. Without them no deletion can be matched to its records"
    )
    if json:
        print_json(KeysReport(folder=str(folder.absolute()), made=made, public_key_sha256=found.fingerprint))
    else:
        print_document(f"public key SHA-256 {found.fingerprint}")
