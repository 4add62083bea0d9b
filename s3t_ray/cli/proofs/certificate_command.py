"""`s3t certificate` hands certificates out; `s3t check-certificate` checks them with the public key alone.

A file holds entries of the run's log exactly as they were signed, one per line: certificates, and
receipts. Pages (`--html`) and in-toto statements (`--dsse`) hold them too. The check needs neither the run nor its
machine, only these files and the public key, and it imports nothing heavier than cryptography.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3t_ray.cli.options import JsonOption, RunArgument
from s3t_ray.cli.proofs.proof_files import read_file, read_proof_file, write_new
from s3t_ray.errors import DataError, VerificationFailed

if TYPE_CHECKING:
    from s3t_ray.proof.signed_entry import SignedEntry
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
    app.command(
        "check-certificate",
        epilog="Examples:\n"
        "$ s3t check-certificate deletion.json --public-key public.pem\n"
        "$ s3t check-certificate deletion.html --public-key public.pem\n"
        "$ s3t check-certificate chain.jsonl --public-key public.pem\n"
        "$ s3t check-certificate deletion.json --public-key public.pem --receipt receipt.json --subject ann\n"
        "$ s3t check-certificate deletion.json --public-key public.pem --proof deletion.proof --witness KEY",
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
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", help="New page to write, for the person: it tells in plain words, and checks itself in a browser."
        ),
    ] = None,
    dsse: Annotated[
        Path | None,
        typer.Option("--dsse", metavar="FILE", help="New file for the same facts as a signed in-toto statement."),
    ] = None,
    proof: Annotated[
        Path | None,
        typer.Option("--proof", metavar="FILE", help="New file for the proof that the certificate stands in the log."),
    ] = None,
    receipt_proof: Annotated[
        Path | None,
        typer.Option("--receipt-proof", metavar="FILE", help="New file for the same proof of the deletion's receipt."),
    ] = None,
    timestamp: Annotated[
        Path | None,
        typer.Option(
            "--timestamp", metavar="FILE", help="New file for a timestamp; --proof then leads to what it is of."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the signed certificate of a deletion, or write it to a file for whoever asked for the deletion.

    Without REQUEST: the whole log of the run, receipts included, oldest
    first. Until a deletion is restored its certificate is the interim one,
    which says that every byte is gone. With --json the text is exactly
    what was signed: one entry per line. The page of --html is one file
    that needs neither the run nor the internet. --dsse signs with the
    run's key, which must be there.

    --proof writes a c2sp.org/tlog-proof: the path from the certificate to
    the run's signed checkpoint, with the cosignatures of witnesses. It shows
    nothing of other deletions.
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
        raise typer.BadParameter(f"{' and '.join(wanted)}: of one deletion; name its REQUEST")
    with Run.open(run, read_only=True) as opened:
        texts = chain_of(opened) if request is None else (certificate_of(opened, request), *key_changes_of(opened))
        public_key = opened.location.keys_dir / "public.pem"
        if timestamp is not None and proof is None:
            raise typer.BadParameter("--timestamp is of the checkpoint that --proof leads to: give --proof too")
        for name, path in wanted.items():
            if name != "--timestamp":  # it comes with the proof
                _hand_out(opened, str(request), texts[0], name, path, timestamp)
    if html is not None:
        note(f"page written to {html}; to check: open it, or s3t check-certificate {html} --public-key {public_key}")
    if out is not None:
        write_new(out, "".join(f"{text}\n" for text in texts))
        what = "certificate" if request is not None and len(texts) == 1 else "entry"
        note(f"{plural(len(texts), what)} written to {out}; to check: s3t check-certificate {out} "
             f"--public-key {public_key}")  # fmt: skip
    if json:
        for text in texts:
            print_document(text)
    elif out is None and not wanted:
        stdout_console().print(Group(*(entry_view(verify_entry(text)) for text in texts)))


def _hand_out(run: Run, request: str, text: str, kind: str, path: Path, timestamp: Path | None) -> None:
    """Write the file of this option. `text`: the newest certificate; `timestamp`: file for that of the proof."""
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
            note(f"the page holds no proof of the certificate's place in the log: {error.problem}; {error.fix}")
        write_new(path, certificate_page((*entries_of(run, request), *key_changes_of(run)), proof, __version__))


def check_certificate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of certificates, one a line; pages; statements.")
    ],
    public_key: Annotated[
        Path, typer.Option("--public-key", metavar="PEM", help="The run's public.pem, from a source that you trust.")
    ],
    receipt: Annotated[
        Path | None,
        typer.Option("--receipt", metavar="FILE", help="The receipt (`s3t delete --receipt-out`) they must belong to."),
    ] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Id that the receipt must name.")] = None,
    subjects: Annotated[list[str] | None, typer.Option("--subject", help="Person that the receipt must name.")] = None,
    proofs: Annotated[
        list[Path] | None,
        typer.Option("--proof", metavar="FILE", help="Proof that a certificate given, or the receipt, is in the log."),
    ] = None,
    witnesses: Annotated[
        list[str] | None, typer.Option("--witness", metavar="KEY", help="Public key of a witness that you trust.")
    ] = None,
    quorum: Annotated[
        int | None,
        typer.Option("--quorum", min=0, help="Witnesses that must have cosigned; default: all that are given."),
    ] = None,
    timestamp: Annotated[
        Path | None, typer.Option("--timestamp", metavar="FILE", help="Timestamp of the checkpoint of the --proof.")
    ] = None,
    tsa_roots: Annotated[
        Path | None,
        typer.Option("--tsa-roots", metavar="PEM", help="Root certificates of the timestamp authority that you trust."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check certificates offline: that the run's key signed them, unchanged, and that together they are one log.

    Needs no run. Exit code 8 when an entry is edited, forged or of another
    key, when two of them claim one place in the log, or when a live adapter
    is one that was erased. With --receipt: also that the certificates are
    of that deletion, and, with --id and --subject, of exactly these names.
    With --proof (`s3t certificate --proof`): also that the run's signed log
    has the entry, and, with --witness, that others have seen that log.
    """
    from s3t_ray.cli.show.output import print_json, stdout_console
    from s3t_ray.cli.show.show_proof import CertificatesChecked, checked_view
    from s3t_ray.proof.deletion_statement import entries_in
    from s3t_ray.proof.handed_out import check_handed_out, check_proofs, check_receipt, keys_among
    from s3t_ray.tlog.log_proof import LogProof
    from s3t_ray.tlog.signed_note import VerifierKey
    from s3t_ray.tlog.timestamp import stamped_at

    pem = read_file(public_key, "the public key")
    held = [read_proof_file(path) for path in files]
    texts = [text for each in held for text in each.entries]
    texts += [entry.to_json() for each in held for text in each.envelopes for entry in entries_in(text, pem)]
    if not texts:
        raise DataError("the files hold no certificate", "give files that `s3t certificate` wrote")
    texts = list(dict.fromkeys(texts))
    keys = keys_among(texts, pem)
    entries, missing = check_handed_out(texts, pem)
    handed: tuple[SignedEntry, ...] = entries
    if receipt is not None:
        text = read_file(receipt, "the receipt").decode(errors="replace")
        handed = (*entries, check_receipt(text, keys, entries, ids or (), subjects or ()))
    elif ids or subjects:
        raise typer.BadParameter("--id and --subject need the --receipt that they were deleted with")
    given = [read_file(path, "the proof").decode(errors="replace") for path in proofs or ()]
    seen = check_proofs(
        [*given, *(text for each in held for text in each.proofs)],
        handed,
        [VerifierKey.parse(text) for text in witnesses or ()],
        quorum,
        keys,
    )
    stamped = None
    if timestamp is not None:
        if tsa_roots is None or len(proofs or ()) != 1:
            raise typer.BadParameter("--timestamp needs the one --proof whose checkpoint it is of, and --tsa-roots")
        checkpoint = LogProof.parse(read_file((proofs or [])[0], "the proof").decode(errors="replace")).checkpoint
        reply, roots = read_file(timestamp, "the timestamp"), read_file(tsa_roots, "the root certificates")
        stamped = stamped_at(reply, checkpoint.text, roots).isoformat()
    last = entries[-1]
    checked = CertificatesChecked(
        certificates=len(entries),
        first=entries[0].facts.sequence,
        last=last.facts.sequence,
        missing=missing,
        head=last.hash,
        run=last.facts.run,
        public_key=last.fingerprint,
        in_log=seen,
        stamped_at=stamped,
        requests=tuple(dict.fromkeys(_request(entry) for entry in entries if _request(entry))),
    )
    if json:
        print_json(checked)
    else:
        stdout_console().print(checked_view(checked, entries))


def _request(entry: SignedEntry) -> str:
    return str(getattr(entry.facts, "request_id", ""))
