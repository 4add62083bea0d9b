"""The secret of a run's partition: the key of `data.partition.place`.

In: an open run. Out: 32 bytes, or None for a partition by the seed alone. Places are assigned once, when the data is
read in. After that the ledger has them, and the key is needed only for records that the run never had.
"""

from __future__ import annotations

from s3t_ray.data.partition import Place, place
from s3t_ray.data.records import Record
from s3t_ray.run.run import Run


def asked_for(run: Run) -> bytes | None:
    """What the config asks for, of data that is about to be read in. Makes the run's keys."""
    return run.keys.place_key if run.config.data.partition_key == "secret" else None


def begun_with(run: Run) -> bytes | None:
    """What the run's data was placed with, whatever its config says by now."""
    summary = run.input_summary
    return run.keys.place_key if summary is not None and summary.partition_key == "secret" else None


def place_in(run: Run, record: Record) -> Place:
    """Where the record lies in this run, or would."""
    return place(record.id, record.subject, run.config, begun_with(run))
