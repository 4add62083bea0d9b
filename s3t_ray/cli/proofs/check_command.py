"""`s3t check-certificate`: check certificates, receipts and proofs offline, with the public key alone.

The check needs neither the run nor its machine, only the files and the public key. It imports nothing heavier than
cryptography.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3t_ray.cli.options import JsonOption
from s3t_ray.cli.proofs.proof_files import read_file, read_proof_file
from s3t_ray.errors import DataError

if TYPE_CHECKING:
    from s3t_ray.cli.proofs.proof_files import ProofFile
    from s3t_ray.cli.show.show_proof import CertificatesChecked
    from s3t_ray.proof.handed_out import Inclusion
    from s3t_ray.proof.signed_entry import SignedEntry


def add_to(app: typer.Typer) -> None:
    app.command(
        "check-certificate",
        epilog="Examples:\n"
        "$ s3t check-certificate deletion.json --public-key public.pem\n"
        "$ s3t check-certificate deletion.html --public-key public.pem\n"
        "$ s3t check-certificate chain.jsonl --public-key public.pem\n"
        "$ s3t check-certificate deletion.json --public-key public.pem --receipt receipt.json --subject ann\n"
        "$ s3t check-certificate deletion.json --public-key public.pem --proof deletion.proof --witness KEY",
    )(check_certificate)


FilesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="Certificates (one per line), pages (--html) or statements (--dsse)."),
]
TrustedKeyOption = Annotated[
    Path, typer.Option("--public-key", metavar="PEM", help="The run's public.pem, from a source that you trust.")
]
OneReceiptOption = Annotated[
    Path | None,
    typer.Option("--receipt", metavar="FILE", help="The receipt (`s3t delete --receipt-out`) they must belong to."),
]
NamedIdOption = Annotated[list[str] | None, typer.Option("--id", help="Id that the receipt must name.")]
NamedSubjectOption = Annotated[list[str] | None, typer.Option("--subject", help="Person that the receipt must name.")]
ProofsOption = Annotated[
    list[Path] | None,
    typer.Option("--proof", metavar="FILE", help="Proof that one of the certificates, or the receipt, is in the log."),
]
WitnessKeyOption = Annotated[
    list[str] | None, typer.Option("--witness", metavar="KEY", help="Public key of a witness that you trust.")
]
QuorumOption = Annotated[
    int | None, typer.Option("--quorum", min=0, help="How many --witness must have cosigned; default: all.")
]
StampOption = Annotated[
    Path | None, typer.Option("--timestamp", metavar="FILE", help="Timestamp of the --proof's checkpoint.")
]
RootsOption = Annotated[
    Path | None,
    typer.Option("--tsa-roots", metavar="PEM", help="Root certificates of the timestamp authority that you trust."),
]


def check_certificate(
    files: FilesArgument,
    public_key: TrustedKeyOption,
    receipt: OneReceiptOption = None,
    ids: NamedIdOption = None,
    subjects: NamedSubjectOption = None,
    proofs: ProofsOption = None,
    witnesses: WitnessKeyOption = None,
    quorum: QuorumOption = None,
    timestamp: StampOption = None,
    tsa_roots: RootsOption = None,
    json: JsonOption = False,
) -> None:
    """Check certificates offline: that the run's key signed them, that they are unchanged, and that they form one log.

    Needs no run. Exit code 8: an entry was edited, forged or signed by
    another key, two entries claim the same place in the log, or a live
    adapter is one that was erased.

    With --receipt, also checks that the certificates belong to that
    deletion; with --id and --subject, that it named exactly these. With
    --proof (`s3t certificate --proof`), also checks that the entry is in the
    run's signed log; with --witness, that witnesses have seen that log.
    """
    from s3t_ray.cli.show.output import print_json, stdout_console
    from s3t_ray.cli.show.show_proof import checked_view
    from s3t_ray.proof.handed_out import check_handed_out, check_proofs, check_receipt, keys_among
    from s3t_ray.tlog.signed_note import VerifierKey

    pem = read_file(public_key, "the public key")
    held = [read_proof_file(path) for path in files]
    texts = _texts(held, pem)
    keys = keys_among(texts, pem)
    entries, missing = check_handed_out(texts, pem)
    handed: tuple[SignedEntry, ...] = entries
    if receipt is not None:
        text = read_file(receipt, "the receipt").decode(errors="replace")
        handed = (*entries, check_receipt(text, keys, entries, ids or (), subjects or ()))
    elif ids or subjects:
        raise typer.BadParameter("--id and --subject need the --receipt of their deletion")
    given = [read_file(path, "the proof").decode(errors="replace") for path in proofs or ()]
    seen = check_proofs(
        [*given, *(text for each in held for text in each.proofs)],
        handed,
        [VerifierKey.parse(text) for text in witnesses or ()],
        quorum,
        keys,
    )
    stamped = None if timestamp is None else _stamped_at(timestamp, tsa_roots, proofs or [])
    checked = _summary(entries, missing, seen, stamped)
    if json:
        print_json(checked)
    else:
        stdout_console().print(checked_view(checked, entries))


def _texts(held: list[ProofFile], pem: bytes) -> list[str]:
    """The signed entries in these files, each once. DataError: there are none."""
    from s3t_ray.proof.deletion_statement import entries_in

    texts = [text for each in held for text in each.entries]
    texts += [entry.to_json() for each in held for text in each.envelopes for entry in entries_in(text, pem)]
    if not texts:
        raise DataError("the files hold no certificate", "give files that `s3t certificate` wrote")
    return list(dict.fromkeys(texts))


def _stamped_at(timestamp: Path, tsa_roots: Path | None, proofs: list[Path]) -> str:
    """Time at which the checkpoint of the one proof was stamped."""
    from s3t_ray.tlog.log_proof import LogProof
    from s3t_ray.tlog.timestamp import stamped_at

    if tsa_roots is None or len(proofs) != 1:
        raise typer.BadParameter("--timestamp needs --tsa-roots, and exactly one --proof, whose checkpoint was stamped")
    checkpoint = LogProof.parse(read_file(proofs[0], "the proof").decode(errors="replace")).checkpoint
    reply, roots = read_file(timestamp, "the timestamp"), read_file(tsa_roots, "the root certificates")
    return stamped_at(reply, checkpoint.text, roots).isoformat()


def _summary(
    entries: tuple[SignedEntry, ...], missing: int, in_log: tuple[Inclusion, ...], stamped: str | None
) -> CertificatesChecked:
    from s3t_ray.cli.show.show_proof import CertificatesChecked

    last = entries[-1]
    return CertificatesChecked(
        certificates=len(entries),
        first=entries[0].facts.sequence,
        last=last.facts.sequence,
        missing=missing,
        head=last.hash,
        run=last.facts.run,
        public_key=last.fingerprint,
        in_log=in_log,
        stamped_at=stamped,
        requests=tuple(dict.fromkeys(_request(entry) for entry in entries if _request(entry))),
    )


def _request(entry: SignedEntry) -> str:
    return str(getattr(entry.facts, "request_id", ""))
