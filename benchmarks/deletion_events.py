"""Measures the time from receipt to pruned, with polling and with a call, for one affected shard and for all.
Also measures the memory of the owners of many shards.

    python benchmarks/deletion_events.py                             # about three minutes on two cores
    python benchmarks/deletion_events.py --shards 8 --many-shards 0  # a smaller run

The scheduler either finds a deletion at its next poll or is notified by a call. Both alternate in one run of a tiny
model on a real scheduler, with a real replica that confirms each live set. Stages have random adapters and no shard is
healed: nothing trains, and all steps up to *pruned* are unchanged.
Writes benchmarks/results/deletion_events.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchlib.events import Events, Owners, measure_events, measure_owners

from s3t_ray.runtime.connect import connected
from s3t_ray.sweep.result_file import save


@dataclass(frozen=True)
class Result:
    events: Events
    owners: Owners | None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shards", type=int, default=64, help="shards of the served run")
    parser.add_argument("--singles", type=int, default=8, help="deletions of one record, each way")
    parser.add_argument("--batches", type=int, default=2, help="deletions that affect every shard, each way")
    parser.add_argument("--many-shards", type=int, default=1000, help="shards of the run that measures owners; 0: none")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "deletion_events.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, connected(None):
        events = measure_events(Path(folder), options.shards, options.singles, options.batches)
        for name, found in (("one affected shard", events.single), (f"{events.touched} affected", events.all_shards)):
            polled, called = found.polled, found.called
            print(f"{name}: polled {polled.median_ms:.0f} ms, called {called.median_ms:.0f} ms (median)")
        owners = measure_owners(Path(folder), options.many_shards) if options.many_shards else None
        if owners is not None:
            print(
                f"{owners.shards} shards: {owners.processes} owners, {owners.resident_mb:.0f} MB together; "
                f"all views {owners.views_seconds:.2f} s, all pruned {owners.prune_seconds:.2f} s; "
                f"{owners.touched} pruned in parallel in {owners.together_seconds:.3f} s, "
                f"sequentially in {owners.in_turn_seconds:.3f} s"
            )
    print(f"written to {save(options.out, Result(events, owners))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
