"""`s3t certificate` hands certificates out; `s3t check-certificate` checks them with the public key alone.

A file holds entries of the run's log exactly as they were signed, one per line: certificates, and
receipts. The check needs neither the run nor its machine, only these files and the public key, and it
imports nothing heavier than cryptography.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3t_ray.cli.options import JsonOption, RunArgument
from s3t_ray.errors import DataError

if TYPE_CHECKING:
    from s3t_ray.proof.signed_entry import SignedEntry


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n"
        "$ s3t certificate runs/alpaca 6ec0a1b2c3d4e5f6\n"
        "$ s3t certificate runs/alpaca 6ec0a1b2c3d4e5f6 --out deletion.json\n"
        "$ s3t certificate runs/alpaca --out chain.jsonl"
    )(certificate)
    app.command(
        "check-certificate",
        epilog="Examples:\n"
        "$ s3t check-certificate deletion.json --public-key public.pem\n"
        "$ s3t check-certificate chain.jsonl --public-key public.pem\n"
        "$ s3t check-certificate deletion.json --public-key public.pem --receipt receipt.json --subject ann",
    )(check_certificate)


def certificate(
    run: RunArgument,
    request: Annotated[
        str | None,
        typer.Argument(metavar="REQUEST", help="Id of the deletion, from its receipt; left out: the whole log."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="New file to write, one entry per line, as it was signed.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the signed certificate of a deletion, or write it to a file for whoever asked for the deletion.

    Without REQUEST: the whole log of the run, receipts included, oldest
    first. Until a deletion is restored its certificate is the interim one,
    which says that every byte is gone. With --json the text is exactly
    what was signed: one entry per line.
    """
    from rich.console import Group

    from s3t_ray.cli.show.output import note, print_document, stdout_console
    from s3t_ray.cli.show.show_proof import entry_view
    from s3t_ray.cli.show.units import plural
    from s3t_ray.proof.run_log import verify_entry
    from s3t_ray.run.issued_certificates import certificate_of, chain_of
    from s3t_ray.run.run import Run

    with Run.open(run, read_only=True) as opened:
        texts = chain_of(opened) if request is None else (certificate_of(opened, request),)
        public_key = opened.location.keys_dir / "public.pem"
    if out is not None:
        _write_new(out, texts)
        what = "certificate" if request is not None else "entry"
        note(f"{plural(len(texts), what)} written to {out}; to check: s3t check-certificate {out} "
             f"--public-key {public_key}")  # fmt: skip
    elif json:
        for text in texts:
            print_document(text)
    else:
        stdout_console().print(Group(*(entry_view(verify_entry(text)) for text in texts)))


def check_certificate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of certificates, one a line.")],
    public_key: Annotated[
        Path, typer.Option("--public-key", metavar="PEM", help="The run's public.pem, from a source that you trust.")
    ],
    receipt: Annotated[
        Path | None,
        typer.Option("--receipt", metavar="FILE", help="The receipt (`s3t delete --receipt-out`) they must belong to."),
    ] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Id that the receipt must name.")] = None,
    subjects: Annotated[list[str] | None, typer.Option("--subject", help="Person that the receipt must name.")] = None,
    json: JsonOption = False,
) -> None:
    """Check certificates offline: that the run's key signed them, unchanged, and that together they are one log.

    Needs no run. Exit code 8 when an entry is edited, forged or of another
    key, when two of them claim one place in the log, or when a live adapter
    is one that was erased. With --receipt: also that the certificates are
    of that deletion, and, with --id and --subject, of exactly these names.
    """
    from s3t_ray.cli.show.output import print_json, stdout_console
    from s3t_ray.cli.show.show_proof import CertificatesChecked, checked_view
    from s3t_ray.proof.handed_out import check_handed_out, check_receipt

    pem = _read(public_key, "the public key")
    texts = [line for file in files for line in _read(file, "the certificate").decode(errors="replace").splitlines()]
    texts = [text for text in dict.fromkeys(texts) if text.strip()]
    if not texts:
        raise DataError("the files hold no certificate", "give files that `s3t certificate` wrote")
    entries, missing = check_handed_out(texts, pem)
    if receipt is not None:
        text = _read(receipt, "the receipt").decode(errors="replace")
        check_receipt(text, pem, entries, tuple(ids or ()), tuple(subjects or ()))
    elif ids or subjects:
        raise typer.BadParameter("--id and --subject need the --receipt that they were deleted with")
    last = entries[-1]
    checked = CertificatesChecked(
        certificates=len(entries),
        first=entries[0].facts.sequence,
        last=last.facts.sequence,
        missing=missing,
        head=last.hash,
        run=last.facts.run,
        public_key=last.fingerprint,
        requests=tuple(dict.fromkeys(_request(entry) for entry in entries if _request(entry))),
    )
    if json:
        print_json(checked)
    else:
        stdout_console().print(checked_view(checked, entries))


def _request(entry: SignedEntry) -> str:
    return str(getattr(entry.facts, "request_id", ""))


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror}", "give a file that is there") from error


def _write_new(path: Path, texts: tuple[str, ...]) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in texts)
    except FileExistsError as error:
        raise DataError(f"{path} is there already", "name a new file: nothing is overwritten") from error
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}", "name a file in a writable folder") from error
