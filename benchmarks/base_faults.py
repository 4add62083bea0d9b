"""Measures how fast `s3t train` refuses a damaged base: a file missing, empty or truncated, or a weight renamed.

    python -m benchmarks.base_faults --json base_faults.json

Each fault gets its own process, timed as from the shell: imports, the config, the check of the base. In: how many
weights to rename (all, unless `--weights`). Out: exit codes, wall and CPU seconds, and the slowest of each kind. The
exit code is 1 if a fault is not refused, causes a traceback, does not name the file, or takes over 10 CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_llama

MOST_SECONDS = 10.0
SINGLE = "model.safetensors"
FILES = ("chat_template.jinja", "config.json", SINGLE, "tokenizer.json", "tokenizer_config.json")
"""generation_config.json is not read (`tests/e2e/train/test_base_faults.py`)."""
CONFIG = """\
name: faults
shards: 1
slices: 2
budget: 1
model: {path: %s}
task: {prompt: chat_template, max_tokens: 64}
data: {path: %s}
lora: {layers_per_group: 1}
storage: {uri: %s}
"""


@dataclass(frozen=True)
class Refusal:
    """How the command ended."""

    fault: str
    named: str
    code: int
    wall_seconds: float
    cpu_seconds: float
    said: str

    @property
    def good(self) -> bool:
        plain = "Traceback" not in self.said and "fix:" in self.said and self.named in self.said
        return self.code == 2 and plain and self.cpu_seconds <= MOST_SECONDS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=None, help="how many weights to rename; default: all")
    parser.add_argument("--json", type=Path, default=None, help="file for the figures")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="s3t-faults-") as folder:
        base = tiny_llama(Path(folder) / "base", layers=3)
        faults = list(_faults(base, given.weights))
        refusals = [_refused(base, Path(folder), *each) for each in track(faults, console=Console(stderr=True))]
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(each) for each in refusals], indent=1) + "\n")
    table = Table("fault", "refused", "slowest, CPU s", "slowest, wall s")
    for kind in dict.fromkeys(each.fault.split(": ")[0] for each in refusals):
        own = [each for each in refusals if each.fault.split(": ")[0] == kind]
        slowest = [f"{max(values):.1f}" for values in zip(*((e.cpu_seconds, e.wall_seconds) for e in own), strict=True)]
        table.add_row(kind, f"{sum(each.good for each in own)} of {len(own)}", *slowest)
    Console().print(table)
    wrong = [each for each in refusals if not each.good]
    for each in wrong:
        print(f"{each.fault}: {each.code}, {each.cpu_seconds:.1f} s: {each.said[-400:]}")
    return 1 if wrong else 0


def _faults(base: Path, weights: int | None) -> Iterator[tuple[str, str, str]]:
    """(fault, file, name that the refusal must contain)."""
    for name in FILES:
        for how in ("missing", "empty", "half", "three bytes short"):
            yield f"{how}: {name}", name, name
    names = sorted(load_file(base / SINGLE))
    step = 1 if weights is None else max(1, len(names) // weights)
    for name in names[::step]:
        yield f"renamed: {name}", SINGLE, name


def _refused(base: Path, folder: Path, fault: str, file: str, named: str) -> Refusal:
    copy = Path(shutil.copytree(base, folder / "copy"))
    how, _, what = fault.partition(": ")
    data = (copy / file).read_bytes()
    if how == "missing":
        (copy / file).unlink()
    elif how == "renamed":
        held = load_file(copy / SINGLE)
        save_file({name + "_x" * (name == what): weight for name, weight in held.items()}, copy / SINGLE)
    else:
        (copy / file).write_bytes(data[: {"empty": 0, "half": len(data) // 2, "three bytes short": -3}[how]])
    (folder / "faults.yaml").write_text(CONFIG % (copy, folder / "never-read.jsonl", folder / "run"))
    before, began = _cpu_of_children(), time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "s3t_ray.cli.main", "train", str(folder / "faults.yaml")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "1000"},
    )
    wall, cpu = time.monotonic() - began, _cpu_of_children() - before
    shutil.rmtree(copy)
    return Refusal(fault, named, ended.returncode, round(wall, 2), round(cpu, 2), ended.stdout + ended.stderr)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
