"""Certificates to hand out: the text of one deletion's, or the whole chain.

In: an open run. Out: canonical JSON exactly as it was signed. A damaged one is not given out.
"""

from __future__ import annotations

from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger.certificate import verify_certificate
from s3t_ray.run.run import Run


def certificate_of(run: Run, request_id: str) -> str:
    """The certificate of one deletion.

    Raises LedgerError when there is no such deletion or it is not restored yet, VerificationFailed when
    what the ledger holds is not a genuine certificate of it.
    """
    request_id = run.request_named(request_id)
    deletion = run.ledger.deletion(request_id)
    for row in run.ledger.stored_certificates():
        if row.request_id == request_id:
            if verify_certificate(row.text).facts.request_id != request_id:
                raise VerificationFailed(
                    f"the certificate that the ledger has for deletion {request_id} is of another deletion",
                    "look into it with `s3t audit`",
                )
            return row.text
    raise LedgerError(
        f"deletion {request_id} is {deletion.state}: it has no certificate yet",
        "wait until it is restored (`s3t status`); `s3t train` with the run's config carries it on",
    )


def chain_of(run: Run) -> tuple[str, ...]:
    """All certificates of the run, oldest first. Raises VerificationFailed for one that is not genuine."""
    texts = tuple(row.text for row in run.ledger.stored_certificates())
    for text in texts:
        verify_certificate(text)
    return texts
