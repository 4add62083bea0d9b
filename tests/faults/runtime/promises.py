"""What must be true of a settled run, however often and wherever it was killed.

In: the run's folder, what was acknowledged. Out: sentences, one for each promise that does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from s3t_ray.audit.audit import audit
from s3t_ray.data.slices import read_slice
from s3t_ray.ledger.values import DeletionState, StageState
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from tests.fakes import adapters

Adapters = Mapping[tuple[int, tuple[int, ...]], bytes]


def unkept(run: Run, acknowledged: Iterable[str], expected: Adapters, handed_out: Sequence[str] = ()) -> list[str]:
    """Promises of a settled run that are not kept.

    `acknowledged`: request ids of receipts that were given; `handed_out`: certificates.
    """
    deletions = run.ledger.deletions()
    problems = [
        f"lost: deletion {request} was acknowledged and is not in the ledger"
        for request in acknowledged
        if request not in {row.receipt.request_id for row in deletions}
    ]
    problems += [
        f"deletion {row.receipt.request_id} stays {row.state}"
        for row in deletions
        if row.state is not DeletionState.RESTORED
    ]
    if adapters(run) != expected:
        problems.append(f"live adapters are not those of a training without the deleted: {_difference(run, expected)}")
    problems += [f"audit: {problem}" for problem in audit(run, known=handed_out).problems]
    problems += [f"left behind: {path}" for path in sorted(Path(run.location.storage_uri).rglob("tmp-*"))]
    return problems


def found_in(folder: Path, texts: Iterable[str], apart_from: Iterable[str]) -> list[str]:
    """Files under `folder` that hold one of `texts`, in plain or in a row of a Parquet file."""
    wanted = [(text, text.encode()) for text in texts]
    apart = set(apart_from)
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in apart:
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += " ".join(f"{row.id} {row.content}" for row in read_slice(path)).encode()
        found += [f"{path.relative_to(folder)} holds {text!r}" for text, raw in wanted if raw in data]
    return found


def published_and_wanted(run: Run) -> frozenset[str]:
    """Stages that nothing may train again: live in the ledger, or whole in the store and wanted."""
    if run.ledger.run() is None:
        return frozenset()
    live = {row.id for row in run.ledger.stages(state=StageState.LIVE)}
    wanted = {name for shard in range(run.row.shards) for name in view_shard(run, shard).plan.stages}
    whole = {path.split("/")[1] for path in run.store.files("stages") if path.endswith("/manifest.json")}
    return frozenset((live | whole) & wanted)


def _difference(run: Run, expected: Adapters) -> str:
    found = adapters(run)
    parts = {
        "missing": expected.keys() - found.keys(),
        "too many": found.keys() - expected.keys(),
        "other bytes": {place for place in found.keys() & expected.keys() if found[place] != expected[place]},
    }
    return ", ".join(f"{what}: {sorted(places)}" for what, places in parts.items() if places)
