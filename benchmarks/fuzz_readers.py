"""Randomly damages real data files and base folders, reads them, and counts the faults.

A fault is a traceback, a record that differs from the file, a row that is neither a record nor counted as rejected, or
a base that passes for another. In: the number of inputs and a seed. Out: a table, and with `--keep` the inputs that
caused a fault. The exit code is 1 if there was one.

    python -m benchmarks.fuzz_readers                  # 10,000 inputs
    python -m benchmarks.fuzz_readers --inputs 500 --seed 7 --keep faults/
"""

from __future__ import annotations

import argparse
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from tests.unit.data.mangled_files import SAMPLES, TASKS, faults, mangled, read

COLUMNS = ("file", "inputs", "refused", "read in part", "read whole", "faults")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=None, help="folder for inputs that caused a fault")
    parser.add_argument("--only", choices=SAMPLES, default=None, help="only this sample")
    options = parser.parse_args(arguments)
    console, began = Console(), time.monotonic()
    names = [options.only] if options.only else list(SAMPLES)
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.inputs):
            random = Random(f"{options.seed}/{number}")
            name = names[number % len(names)]
            data = mangled(random, name)
            path = Path(folder) / name
            path.write_bytes(data)
            outcome, found = _outcome(path, data, random)
            counts[name].update([COLUMNS[1], outcome])
            for fault in found:
                console.print(f"input {number}, {name}: {fault}", style="red", markup=False, highlight=False)
                counts[name]["faults"] += 1
                if options.keep is not None:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{number}-{name}").write_bytes(data)
    console.print(_table(counts, time.monotonic() - began))
    return 1 if any(count["faults"] for count in counts.values()) else 0


def _outcome(path: Path, data: bytes, random: Random) -> tuple[str, list[str]]:
    """The column that counts this input, and its faults."""
    try:
        found = read(path, random.choice(TASKS))
        wrong = list(faults(path.name, data, found))
    except Exception:  # noqa: BLE001 - whatever escapes is what this looks for
        return "", [traceback.format_exc(limit=-4)]
    if found.refused is not None:
        return "refused", wrong
    return ("read in part" if found.rejected else "read whole"), wrong


def _table(counts: dict[str, Counter[str]], seconds: float) -> Table:
    total: Counter[str] = sum(counts.values(), Counter())
    table = Table(title=f"{total['inputs']:,} damaged inputs in {seconds:.0f} s")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "file" else "right")
    for name, count in [*counts.items(), ("all", total)]:
        table.add_row(name, *(f"{count[column]:,}" for column in COLUMNS[1:]))
    return table


if __name__ == "__main__":
    raise SystemExit(main())
