"""`s3t certificate`: hand out certificates, and proofs that they are in the log.

A file holds entries of the run's log exactly as they were signed, one per line. Pages (`--html`) and in-toto
statements (`--dsse`) hold them too. `check_command.py` checks all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3t_ray.cli.options import JsonOption, RunArgument
from s3t_ray.cli.proofs.proof_files import write_new
from s3t_ray.errors import VerificationFailed

if TYPE_CHECKING:
    from s3t_ray.run.run import Run


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n"
        "$ s3t certificate runs/alpaca 6ec0a1b2c3d4e5f6\n"
        "$ s3t certificate runs/alpaca 6ec0a1b2c3d4e5f6 --out deletion.json\n"
        "$ s3t certificate runs/alpaca 6ec0a1b2c3d4e5f6 --html deletion.html\n"
        "$ s3t certificate runs/alpaca 6ec0a1b2c3d4e5f6 --dsse deletion.dsse.json\n"
        "$ s3t certificate runs/alpaca 6ec0a1b2c3d4e5f6 --proof deletion.proof\n"
        "$ s3t certificate runs/alpaca --out chain.jsonl"
    )(certificate)


RequestArgument = Annotated[
    str | None,
    typer.Argument(metavar="REQUEST", help="Id of the deletion, from its receipt; without it: the whole log."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="New file to write, one signed entry per line.")]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", help="New page to write for the person, in plain words; it checks itself in a browser."),
]
DsseOption = Annotated[
    Path | None,
    typer.Option("--dsse", metavar="FILE", help="New file for the same facts as a signed in-toto statement."),
]
ProofOption = Annotated[
    Path | None,
    typer.Option("--proof", metavar="FILE", help="New file for the proof that the certificate is in the log."),
]
ReceiptProofOption = Annotated[
    Path | None,
    typer.Option("--receipt-proof", metavar="FILE", help="New file for the proof that the receipt is in the log."),
]
TimestampOption = Annotated[
    Path | None,
    typer.Option("--timestamp", metavar="FILE", help="New file for the timestamp of the --proof's checkpoint."),
]


def certificate(
    run: RunArgument,
    request: RequestArgument = None,
    out: OutOption = None,
    html: HtmlOption = None,
    dsse: DsseOption = None,
    proof: ProofOption = None,
    receipt_proof: ReceiptProofOption = None,
    timestamp: TimestampOption = None,
    json: JsonOption = False,
) -> None:
    """Show the signed certificate of a deletion, or write it to a file for the requester.

    Without REQUEST: the whole log of the run, including receipts, oldest
    first. Until a deletion is restored, its certificate is the interim one,
    which says that every byte is gone. With --json the output is exactly
    what was signed, one entry per line. The page of --html is one file that
    needs neither the run nor the internet. --dsse needs the run's key to
    sign.

    --proof writes a c2sp.org/tlog-proof: the path from the certificate to
    the run's signed checkpoint, with the cosignatures of witnesses. It
    reveals nothing about other deletions.
    """
    from rich.console import Group

    from s3t_ray.cli.show.output import note, print_document, stdout_console
    from s3t_ray.cli.show.show_proof import entry_view
    from s3t_ray.cli.show.units import plural
    from s3t_ray.proof.run_log import verify_entry
    from s3t_ray.run.log.issued_certificates import certificate_of, chain_of, key_changes_of
    from s3t_ray.run.run import Run

    files = {
        "--html": html,
        "--dsse": dsse,
        "--proof": proof,
        "--receipt-proof": receipt_proof,
        "--timestamp": timestamp,
    }
    wanted = {name: path for name, path in files.items() if path is not None}
    if request is None and wanted:
        raise typer.BadParameter(f"{' and '.join(wanted)} is for one deletion: name its REQUEST")
    with Run.open(run, read_only=True) as opened:
        texts = chain_of(opened) if request is None else (certificate_of(opened, request), *key_changes_of(opened))
        public_key = opened.location.keys_dir / "public.pem"
        if timestamp is not None and proof is None:
            raise typer.BadParameter("--timestamp belongs to the checkpoint of --proof: give --proof too")
        for name, path in wanted.items():
            if name != "--timestamp":  # written with the proof
                _hand_out(opened, str(request), texts[0], name, path, timestamp)
    if html is not None:
        note(f"wrote page {html}; to check it, open it or run s3t check-certificate {html} --public-key {public_key}")
    if out is not None:
        write_new(out, "".join(f"{text}\n" for text in texts))
        what = "certificate" if request is not None and len(texts) == 1 else "entry"
        note(f"wrote {plural(len(texts), what)} to {out}; to check, run s3t check-certificate {out} "
             f"--public-key {public_key}")  # fmt: skip
    if json:
        for text in texts:
            print_document(text)
    elif out is None and not wanted:
        stdout_console().print(Group(*(entry_view(verify_entry(text)) for text in texts)))


def _hand_out(run: Run, request: str, text: str, kind: str, path: Path, timestamp: Path | None) -> None:
    """Write the file of this option. `text`: the newest certificate; `timestamp`: file for the proof's timestamp."""
    from s3t_ray import __version__
    from s3t_ray.cli.show.output import note
    from s3t_ray.proof.certificate_page import certificate_page
    from s3t_ray.proof.deletion_statement import deletion_envelope
    from s3t_ray.proof.run_log import parse_certificate, parse_entry
    from s3t_ray.run.log.issued_certificates import entries_of, key_changes_of, receipt_of
    from s3t_ray.run.log.log_timestamps import stamped_checkpoint
    from s3t_ray.run.log.published_log import proof_of

    certificate = parse_certificate(text)
    sequence = certificate.facts.sequence
    if kind == "--receipt-proof":
        write_new(path, proof_of(run, parse_entry(receipt_of(run, request)).facts.sequence))
    elif kind == "--proof":
        under = None
        if timestamp is not None:
            under, reply = stamped_checkpoint(run, sequence)
            write_new(timestamp, reply)
        write_new(path, proof_of(run, sequence, under))
    elif kind == "--dsse":
        changes = [parse_entry(each) for each in key_changes_of(run)]
        write_new(path, deletion_envelope(certificate, run.keys, changes) + "\n")
    else:
        proof = None
        try:
            proof = proof_of(run, sequence)
        except VerificationFailed as error:
            note(f"the page has no proof that the certificate is in the log: {error.problem}; {error.fix}")
        write_new(path, certificate_page((*entries_of(run, request), *key_changes_of(run)), proof, __version__))
