"""Delete one person from a run with Python: the impact, the receipt, and finally the certificate.

    python examples/delete_a_person.py RUN ann@example.org

The receipt is durable when `accept` returns. `settle` prunes, purges and retrains. If a scheduler is already
running for the run, it does all that, and `settle` only waits for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from s3t_ray.run import deletion
from s3t_ray.run.log.issued_certificates import certificate_of
from s3t_ray.run.run import Run
from s3t_ray.runtime.delete import settle


def delete(uri: str, subject: str, out: Path) -> str:
    """Delete the subject, wait until the run is restored, write the certificate. Returns the request's id."""
    with Run.open(uri) as run:
        impact = deletion.preview(run, ids=[], subjects=[subject])
        print(f"{impact.records} records, in {len(impact.shards)} shards")
        receipt = deletion.accept(run, ids=[], subjects=[subject])
        print(f"receipt {receipt.request_id}: {len(receipt.stages_pruned)} stages no longer answer")
        settle(run, receipt.request_id)
        out.write_text(certificate_of(run, receipt.request_id))
        print(f"restored; the certificate is in {out}")
    return receipt.request_id


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", help="the folder or URI of the run")
    parser.add_argument("subject", help="the person, as the data names them")
    parser.add_argument("--out", type=Path, default=Path("certificate.json"))
    asked = parser.parse_args()
    delete(asked.run, asked.subject, asked.out)


if __name__ == "__main__":
    main()
