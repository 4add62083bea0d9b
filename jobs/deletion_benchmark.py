"""The deletion benchmark as a Ray job: durable deletions per second, and a run in service meanwhile.

    ray job submit --working-dir . -- python jobs/deletion_benchmark.py --live-shards 64 --folder /shared/bench

`--folder` must be on a disk that all nodes share. The tables are in the job's log; `--out` names the
JSON. Nothing is left behind in the folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from benchlib.deletion import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
