"""The secret of a run's partition: the key of `data.partition.place`.

In: an open run. Out: 32 bytes, or None for a partition by the seed alone. Ingest assigns places once. After that the
ledger has them, and the key is needed only for records that the run never had.
"""

from __future__ import annotations

from s3t_ray.data.partition import Place, place
from s3t_ray.data.records import Record
from s3t_ray.run.run import Run


def asked_for(run: Run) -> bytes | None:
    """The key that the config requires, for an ingest that is about to start. Creates the run's keys."""
    return run.keys.place_key if run.config.data.partition_key == "secret" else None


def begun_with(run: Run) -> bytes | None:
    """The key that placed the run's data, whatever its config says now."""
    summary = run.input_summary
    return run.keys.place_key if summary is not None and summary.partition_key == "secret" else None


def place_in(run: Run, record: Record) -> Place:
    """The place of the record in this run, whether the run has the record or not."""
    return place(record.id, record.subject, run.config, begun_with(run))
