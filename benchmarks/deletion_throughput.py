"""Measures durable deletions per second against the machine's floors, and a served run during deletions.

    python benchmarks/deletion_throughput.py                  # a few minutes
    python benchmarks/deletion_throughput.py --live-shards 0  # receipts only

Writes benchmarks/results/deletion_throughput.json; `--help` lists the sizes. On a cluster: jobs/deletion_benchmark.py.
"""

import sys
from pathlib import Path

from benchlib.deletion import main

if __name__ == "__main__":
    out = Path(__file__).with_name("results") / "deletion_throughput.json"
    sys.exit(main(["--out", str(out), *sys.argv[1:]]))
