"""Measures the engine on a GPU in the minutes that there are.

    python benchmarks/gpu/run.py --minutes 9 --out FOLDER
    python benchmarks/gpu/run.py --dry --out FOLDER

Runs the experiments of `timetable.py`, the most valuable first, each in a process of its own with a time limit of its
own. FOLDER gets a JSON and a log of each, whole as soon as it ends; a point measured is on disk at once. One that
fails or runs over its limit does not keep the others from running, and nothing runs past the minutes. A second call
with the same FOLDER measures what the first one did not. `--dry` goes the same way at toy sizes on a CPU. Exit code 1
when something failed or was not begun.
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
from contextlib import suppress
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS.parent))
sys.path.insert(0, str(BENCHMARKS))

from gpu.points import measured  # noqa: E402
from gpu.timetable import EXPERIMENTS, Experiment, limit_of, to_run  # noqa: E402

DRY_MINUTES = 30.0
DRY_PATIENCE = 8.0
"""A dry run may share its two cores with anything: times its experiments' limits."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="never longer than this; a dry run has 30 by default")
    parser.add_argument("--out", type=Path, required=True, help="results and logs; the same again to go on")
    parser.add_argument("--dry", action="store_true", help="toy sizes on a CPU")
    parser.add_argument("--only", nargs="+", default=(), choices=[each.name for each in EXPERIMENTS], metavar="NAME")
    parser.add_argument("--work", type=Path, help="scratch space, some GB; default: the temporary folder")
    parser.add_argument("--bundle", type=Path, help="a .tar.gz of everything so far, made again after each experiment")
    parser.add_argument("--base", type=Path, help="SmolLM2-135M's folder, for the last experiment")
    parser.add_argument("--records", type=Path, help="TOFU's pairs as JSON lines, likewise")
    given = parser.parse_args()
    if given.minutes is None and not given.dry:
        parser.error("say how long it may take: --minutes")
    return given


def main() -> int:
    began = time.monotonic()
    given = arguments()
    seconds = 60 * (given.minutes or DRY_MINUTES)
    given.out.mkdir(parents=True, exist_ok=True)
    done = measured(given.out)
    if done:
        print(f"measured before, and not again: {', '.join(sorted(done))}", flush=True)
    unfinished = []
    for experiment in to_run(done, given.only):
        limit = limit_of(experiment, seconds - (time.monotonic() - began), DRY_PATIENCE if given.dry else 1.0)
        if limit is None:
            print(f"{experiment.name}: not begun, the minutes are used up", flush=True)
            unfinished.append(experiment.name)
            continue
        print(f"{experiment.name}: {experiment.question} (at most {limit:.0f} s)", flush=True)
        started = time.monotonic()
        how = run(experiment, limit, given)
        print(f"{experiment.name}: {how} after {time.monotonic() - started:.0f} s", flush=True)
        if how != "done":
            unfinished.append(experiment.name)
        if given.bundle:
            bundle(given.out, given.bundle)
    print(f"{time.monotonic() - began:.0f} s; not complete: {', '.join(unfinished) or 'none'}", flush=True)
    return int(bool(unfinished))


def run(experiment: Experiment, limit: float, given: argparse.Namespace) -> str:
    """Run it in a process of its own; how it ended."""
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
                return "ended by its limit"
            finally:
                end(child)
    if code:
        print("".join(log.read_text().splitlines(keepends=True)[-12:]), flush=True)
        return f"failed (exit code {code}, see {log.name})"
    return "done"


def end(child: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


# What torchrun and its like set. A child that inherits a rank waits for a group that nobody else joins.
OF_A_LAUNCHER = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def environment(dry: bool) -> dict[str, str]:
    """As a worker's rank has it."""
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
    """Everything in `folder` as one archive, replaced whole."""
    temporary = to.with_name(f"{to.name}.tmp")
    with tarfile.open(temporary, "w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    os.replace(temporary, to)


if __name__ == "__main__":
    sys.exit(main())
