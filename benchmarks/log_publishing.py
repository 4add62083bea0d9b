"""Compares the cost of publishing a run's log (one entry, and a tenth of the log) with accepting a deletion.

    python benchmarks/log_publishing.py --deletions 2000

A run with the hashing trainer on a local disk. Prints ratios within one run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from s3t_ray.run import deletion
from s3t_ray.run.log.published_log import proof_of, publish
from tests.fakes import Cluster, fake_base, small_config, write_records


def seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deletions", type=int, default=2000)
    count = parser.parse_args().deletions
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fake_base(folder / "base")
        write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(count + 100)])
        cluster = Cluster(small_config(folder))
        cluster.settle()
        run = cluster.run
        names = iter(range(count))
        for _ in range(count * 9 // 10):
            deletion.accept(run, [f"r{next(names)}"], [])
        publish(run)
        commits, singles = [], []
        for _ in range(50):
            name = next(names)
            commits.append(seconds(lambda name=name: deletion.accept(run, [f"r{name}"], [])))  # type: ignore[misc]
            singles.append(seconds(lambda: publish(run)))
        rest = list(names)
        for number in rest:
            deletion.accept(run, [f"r{number}"], [])
        many = seconds(lambda: publish(run))
        accept, single = statistics.median(commits), statistics.median(singles)
        proof = statistics.median(seconds(lambda: proof_of(run, 7)) for _ in range(50))
        print(f"accepting a deletion (median of 50)            1.00   ({1000 * accept:.2f} ms)")
        print(f"publishing one entry, after {run.ledger.log_head().sequence} entries       {single / accept:.2f}")
        print(f"publishing {len(rest)} entries at once, per entry       {many / len(rest) / accept:.2f}")
        print(f"a proof of inclusion                           {proof / accept:.2f}")
        run.close()


if __name__ == "__main__":
    main()
