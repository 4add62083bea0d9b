"""Files that people hand in as proof: entries of a log, one a line, or a page that holds them."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.errors import DataError


def entries_in(path: Path) -> tuple[str, ...]:
    """Texts of the entries in a file of either kind, unchecked. DataError, VerificationFailed.

    A newline alone ends a line: other marks that end one may stand in what was signed.
    """
    from s3t_ray import __version__
    from s3t_ray.proof.certificate_page import is_page, read_page

    text = read_file(path, "the certificate").decode(errors="replace")
    if is_page(text):
        return read_page(text, __version__).entries
    return tuple(line for line in text.split("\n") if line.strip())


def read_file(path: Path, what: str) -> bytes:
    """All of a file. DataError, in which `what` names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror}", "give a file that is there") from error
