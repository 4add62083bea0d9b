"""Measures the engine on a GPU within a time limit.

    python benchmarks/gpu/run.py --minutes 9 --out FOLDER
    python benchmarks/gpu/run.py --dry --out FOLDER

Runs the experiments of `timetable.py`, the most valuable first, each in its own process with its own time limit. FOLDER
gets a JSON and a log for each; every point is on disk as soon as it is measured. If an experiment fails or exceeds its
limit, the others still run, and nothing runs past the minutes. A second call with the same FOLDER measures what is
missing. `--dry` does the same at toy sizes on a CPU, two experiments at a time. The exit code is 1 if an experiment
failed or was not started.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS.parent))
sys.path.insert(0, str(BENCHMARKS))

from gpu.points import measured  # noqa: E402
from gpu.timetable import EXPERIMENTS, Experiment, limit_of, to_run  # noqa: E402

DRY_MINUTES = 30.0
DRY_PATIENCE = 8.0
"""Factor on the limits of a dry run, which may share its cores with other work."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="total time limit; default for a dry run: 30")
    parser.add_argument("--out", type=Path, required=True, help="results and logs; use the same folder to continue")
    parser.add_argument("--dry", action="store_true", help="toy sizes on a CPU")
    parser.add_argument("--only", nargs="+", default=(), choices=[each.name for each in EXPERIMENTS], metavar="NAME")
    parser.add_argument("--work", type=Path, help="scratch space, some GB; default: the temporary folder")
    parser.add_argument("--bundle", type=Path, help="a .tar.gz of all results, rewritten after each experiment")
    parser.add_argument("--base", type=Path, help="folder of SmolLM2-135M, for the last experiment")
    parser.add_argument("--records", type=Path, help="TOFU's pairs as JSON lines, for the last experiment")
    given = parser.parse_args()
    if given.minutes is None and not given.dry:
        parser.error("--minutes is missing: set a time limit")
    return given


def main() -> int:
    began = time.monotonic()
    given = arguments()
    seconds = 60 * (given.minutes or DRY_MINUTES)
    given.out.mkdir(parents=True, exist_ok=True)
    done = measured(given.out)
    if done:
        print(f"already measured: {', '.join(sorted(done))}", flush=True)
    ended = {experiment.name: Event() for experiment in to_run(done, given.only)}
    bundling = Lock()

    def measure(experiment: Experiment) -> bool:
        """Run the experiment. Returns whether it is complete."""
        try:
            if experiment.after in ended:
                ended[experiment.after].wait()
            limit = limit_of(experiment, seconds - (time.monotonic() - began), DRY_PATIENCE if given.dry else 1.0)
            if limit is None:
                print(f"{experiment.name}: not started, no time left", flush=True)
                return False
            print(f"{experiment.name}: {experiment.question} (at most {limit:.0f} s)", flush=True)
            started = time.monotonic()
            how = run(experiment, limit, given)
            print(f"{experiment.name}: {how} after {time.monotonic() - started:.0f} s", flush=True)
            if given.bundle:
                with bundling:
                    bundle(given.out, given.bundle)
            return how == "done"
        finally:
            ended[experiment.name].set()

    experiments = list(to_run(done, given.only))
    # One experiment at a time on a GPU; toy sizes leave a CPU's second core idle.
    with ThreadPoolExecutor(2 if given.dry else 1) as pool:
        whole = list(pool.map(measure, experiments))
    unfinished = [experiment.name for experiment, was in zip(experiments, whole, strict=True) if not was]
    print(f"{time.monotonic() - began:.0f} s; incomplete: {', '.join(unfinished) or 'none'}", flush=True)
    return int(bool(unfinished))


def run(experiment: Experiment, limit: float, given: argparse.Namespace) -> str:
    """Run it in its own process. Returns how it ended."""
    log = given.out / f"{experiment.name}.log"
    with tempfile.TemporaryDirectory(dir=given.work, prefix="s3t-gpu-") as work:
        command = [sys.executable, "-m", "gpu.child", experiment.name, "--work", work]
        command += ["--json", str(given.out.absolute() / f"{experiment.name}.json")]
        command += ["--dry"] if given.dry else []
        for option, path in (("--base", given.base), ("--records", given.records)):
            command += [option, str(path.absolute())] if path else []
        with log.open("a") as file:
            child = subprocess.Popen(
                command, cwd=BENCHMARKS, env=environment(given.dry), stdout=file, stderr=file, start_new_session=True
            )
            try:
                code = child.wait(limit)
            except subprocess.TimeoutExpired:
                return "stopped at its time limit"
            finally:
                end(child)
    if code:
        print("".join(log.read_text().splitlines(keepends=True)[-12:]), flush=True)
        return f"failed (exit code {code}, see {log.name})"
    return "done"


def end(child: subprocess.Popen[bytes]) -> None:
    """End the process and all processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


# Set by torchrun and similar launchers. A child that inherits a rank would wait for a group that nobody joins.
OF_A_LAUNCHER = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def environment(dry: bool) -> dict[str, str]:
    """The environment of a worker's rank."""
    path = os.pathsep.join(filter(None, (str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH"))))
    found = {
        **{name: value for name, value in os.environ.items() if name not in OF_A_LAUNCHER},
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    return found | ({"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""} if dry else {})


def bundle(folder: Path, to: Path) -> None:
    """Pack everything in `folder` into one archive, replaced atomically."""
    temporary = to.with_name(f"{to.name}.tmp")
    with tarfile.open(temporary, "w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    os.replace(temporary, to)


if __name__ == "__main__":
    sys.exit(main())
