"""The deletion benchmark as a Ray job: durable deletions per second, and their effect on a served run.

    ray job submit --working-dir . -- python jobs/deletion_benchmark.py --live-shards 64 --folder /shared/bench

`--folder` must be on a disk that all nodes share. The tables are in the job's log; the JSON is written to the folder,
or to `--out`, and its path is printed. Nothing else is left behind. Submit it from the project's folder: unlike the
other jobs it needs `benchmarks/`, which is not part of the package (`.rayignore` excludes everything else).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from s3t_ray.errors import ConfigError


def deletion_benchmark() -> Callable[[Sequence[str]], int]:
    """The benchmark's main. ConfigError: its library is not next to this file's folder."""
    library = Path(__file__).resolve().parents[1] / "benchmarks"
    if not library.is_dir():
        raise ConfigError(
            f"there is no {library}: this job was submitted without the benchmarks",
            "submit it from the project's folder with `--working-dir . -- python jobs/deletion_benchmark.py`",
        )
    sys.path.insert(0, str(library))
    from benchlib.deletion import main

    return main


if __name__ == "__main__":
    from s3t_ray.cli.show.output import print_error

    try:
        code = deletion_benchmark()(sys.argv[1:])
    except ConfigError as error:
        print_error(error)
        code = error.exit_code
    sys.exit(code)
