"""`s3t verify`: check every id and digest of a run, and replay stages. Also auditors' statements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3t_ray.cli.options import AddressOption, JsonOption, RunArgument
from s3t_ray.cli.proofs.proof_files import read_file, write_new


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n"
        "$ s3t verify runs/alpaca\n"
        "$ s3t verify runs/alpaca --replay 3 --json\n"
        "$ s3t verify copy --as-auditor auditor.key --public-key public.pem --replay 2 --out statement.json"
    )(verify)
    app.command(
        "check-statement",
        epilog="Examples:\n"
        "$ s3t check-statement statement.json --auditor-key auditor.pem\n"
        "$ s3t check-statement statement.json --auditor-key auditor.pem --public-key public.pem --json",
    )(check_statement)


def verify(
    run: RunArgument,
    replay: Annotated[
        int, typer.Option("--replay", min=0, metavar="N", help="Also retrain N live stages and compare the bytes.")
    ] = 0,
    auditor: Annotated[
        Path | None,
        typer.Option(
            "--as-auditor", metavar="KEY", help="Sign the findings with this private key of yours (Ed25519, PEM)."
        ),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(
            "--public-key", metavar="PEM", help="For an auditor: the run's public.pem, from a source that you trust."
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="FOLDER", help="For an auditor: folder of the base model on this machine."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="For an auditor: new file for the signed statement.")
    ] = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Check that the live stages follow from the retained records.

    Exit code 8: a proof does not hold. A replay on other hardware or library
    versions than a stage was trained with can give different bytes. Then
    nothing is proved about that stage, and the exit code is 10.

    With --as-auditor, RUN is a copy on your own machine. Nothing is written
    to it, and the run's secret is not needed. The statement is written, and
    the exit code is the same.
    """
    from s3t_ray.audit.verify import verify as verify_run
    from s3t_ray.cli.show.live_progress import progress
    from s3t_ray.cli.show.output import print_json, stderr_console, stdout_console
    from s3t_ray.cli.show.show_proof import raise_unless_verified, verification_view
    from s3t_ray.cli.show.show_status import glyphs
    from s3t_ray.run.run import Run

    if auditor is not None:
        if public_key is None or out is None:
            raise typer.BadParameter("--as-auditor needs the run's --public-key, and --out for the statement")
        _state(run, auditor, public_key, base, out, replay, address, json)
        return
    if public_key or base or out:
        raise typer.BadParameter("--public-key, --base and --out are for an auditor: give --as-auditor KEY too")
    with Run.open(run, read_only=True) as opened, progress(stderr_console()) as display:
        verification = verify_run(opened, replay=replay, address=address, watch=display.note)
    if json:
        print_json(verification)
    else:
        console = stdout_console()
        console.print(verification_view(verification, glyphs(console)))
    raise_unless_verified(verification, "keep this report; each problem names the stage or slice to look at")


def _state(
    run: str,
    auditor: Path,
    public_key: Path,
    base: Path | None,
    out: Path,
    replay: int,
    address: str | None,
    json: bool,
) -> None:
    """Check a copy, and write the signed findings."""
    from s3t_ray.audit.auditor import audit_copy, open_copy
    from s3t_ray.cli.proofs.auditor_key import AuditorKey
    from s3t_ray.cli.show.live_progress import progress
    from s3t_ray.cli.show.output import note, print_document, stderr_console, stdout_console
    from s3t_ray.cli.show.show_statement import raise_unless_stated_good, statement_view
    from s3t_ray.errors import DataError
    from s3t_ray.proof.audit_statement import audit_envelope
    from s3t_ray.proof.signed_entry import raw_public_key

    key, pem = AuditorKey.load(auditor), read_file(public_key, "the public key")
    raw_public_key(pem)
    if out.exists():
        raise DataError(f"{out} already exists", "name a new file: nothing is overwritten")
    with open_copy(run, base) as opened, progress(stderr_console()) as display:
        facts = audit_copy(opened, pem, replay=replay, address=address, watch=display.note)
    write_new(out, audit_envelope(facts, key) + "\n")
    note(f"wrote statement to {out}; to check, run s3t check-statement {out} --auditor-key PEM with your public key")
    if json:
        print_document(facts.model_dump_json())
    else:
        stdout_console().print(statement_view(facts))
    raise_unless_stated_good(facts)


def check_statement(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Statement that `s3t verify --as-auditor` wrote.")],
    auditor_key: Annotated[
        Path,
        typer.Option("--auditor-key", metavar="PEM", help="The auditor's public key, from a source that you trust."),
    ],
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", metavar="PEM", help="Public key of the run that the statement must be about."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check offline that an auditor signed a statement and that it is unchanged, and show what it says.

    Needs no run. Exit code 8: the statement is not genuine, or states a
    failure. Exit code 10: it states that a replay proves nothing.
    """
    from s3t_ray.cli.show.output import print_document, stdout_console
    from s3t_ray.cli.show.show_statement import raise_unless_stated_good, statement_view
    from s3t_ray.proof.audit_statement import read_audit

    text = read_file(file, "the statement").decode(errors="replace")
    run_key = None if public_key is None else read_file(public_key, "the public key")
    facts = read_audit(text, read_file(auditor_key, "the auditor's key"), run_key)
    if json:
        print_document(facts.model_dump_json())
    else:
        stdout_console().print(statement_view(facts))
    raise_unless_stated_good(facts)
