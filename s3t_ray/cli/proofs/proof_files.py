"""Files of proof that people give and receive: entries of a log (one per line), pages, envelopes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s3t_ray.errors import DataError


@dataclass(frozen=True)
class ProofFile:
    """Unchecked contents of a file."""

    entries: tuple[str, ...] = ()
    """Texts of entries of a log."""
    proofs: tuple[str, ...] = ()
    """c2sp.org/tlog-proof, of one of them."""
    envelopes: tuple[str, ...] = ()
    """DSSE envelopes."""


def read_proof_file(path: Path) -> ProofFile:
    """Read a file of any of these kinds. DataError; VerificationFailed for a page whose text or code was changed.

    Only a newline ends a line: signed text may contain other line separators.
    """
    from s3t_ray import __version__
    from s3t_ray.proof.certificate_page import is_page, read_page
    from s3t_ray.proof.dsse import is_envelope

    text = read_file(path, "the certificate").decode(errors="replace")
    if is_page(text):
        page = read_page(text, __version__)
        return ProofFile(page.entries, () if page.proof is None else (page.proof,))
    if is_envelope(text):
        return ProofFile(envelopes=(text,))
    return ProofFile(tuple(line for line in text.split("\n") if line.strip()))


def read_file(path: Path, what: str) -> bytes:
    """All of a file. DataError, in which `what` names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror}", "give an existing file") from error


def write_new(path: Path, content: str | bytes) -> None:
    """Write a file that does not exist yet. DataError."""
    try:
        with path.open("xb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
    except FileExistsError as error:
        raise DataError(f"{path} already exists", "name a new file: nothing is overwritten") from error
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}", "name a file in a writable folder") from error
