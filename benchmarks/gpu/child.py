"""Runs one experiment in this process: `python -m gpu.child NAME --json FILE --work FOLDER [--dry]`.

The exit code is 1 if a point failed. `run.py` starts it, and ends it at its time limit.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from gpu.card import Device
from gpu.points import Points
from gpu.scene import Scene


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--records", type=Path)
    given = parser.parse_args()
    device = Device("cpu" if given.dry else "cuda")
    points = Points(given.json, given.name, device.describe())
    module = import_module(f"gpu.experiments.{given.name}")
    module.run(points, Scene(device, given.work, given.dry, given.base, given.records))
    points.close()
    return int(points.failed)


if __name__ == "__main__":
    sys.exit(main())
