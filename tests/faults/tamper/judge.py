"""What becomes of one tampering: whether an audit with what was handed out finds it, or the run refuses to open."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from s3t_ray.audit.audit import audit
from s3t_ray.errors import S3TError
from s3t_ray.run.run import Run
from tests.faults.tamper import ledger_kinds, storage_kinds
from tests.faults.tamper.ledger_kinds import Apply
from tests.faults.tamper.lived import Moment, fork
from tests.faults.tamper.not_covered import NOTHING_THERE

AUDIT, REFUSED, MISSED = "audit", "refused", "MISSED"


def all_kinds() -> Iterator[tuple[str, str, Apply]]:
    """(who can do it, name, what is done)."""
    yield from (("storage", *kind) for kind in storage_kinds.kinds())
    yield from (("ledger", *kind) for kind in ledger_kinds.kinds())
    yield from (("both", *kind) for kind in storage_kinds.kinds_of_both())


def judged(moment: Moment, apply: Apply) -> str:
    """AUDIT, REFUSED (an error of ours before anything was written), NOTHING_THERE or MISSED."""
    with tempfile.TemporaryDirectory(dir=moment.folder.parent) as folder:
        root = fork(moment, Path(folder))
        try:
            if not apply(root):
                return NOTHING_THERE
        except sqlite3.IntegrityError:
            return REFUSED  # by a constraint of the ledger itself
        try:
            with Run.open(root, read_only=True) as run:
                report = audit(run, known=moment.certificates, receipts=moment.receipts, trusted_key=moment.public_key)
        except S3TError:
            return REFUSED
    return MISSED if report.result == "verified" else AUDIT
