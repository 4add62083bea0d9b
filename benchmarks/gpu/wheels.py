"""Collects the packages that a GPU machine without network access lacks, in folders small enough to transfer.

    python benchmarks/gpu/wheels.py --to .whl [--also NAME==VERSION ...] [--file PATH ...]

The machine must have Python 3.12, torch 2.11 for CUDA 13, transformers 5.17, accelerate, peft and their dependencies.
`MISSING` lists the other packages that the engine needs, in the versions of constraints.txt. Packages without a wheel
are built here. Each folder `.whl/1`, `.whl/2`, ... holds at most 60 MiB; a larger file is split into `NAME.part-000`,
..., which `start.sh` joins. `--also` adds packages, `--file` adds any file, such as weights. Needs pip's network
access.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MISSING = ("deepspeed", "hjson", "pydantic", "pydantic-core", "annotated-types", "typing-inspection")
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
LIMIT_BYTES = 60 << 20
"""Bytes per folder: a transfer takes 64 MiB, including the project itself."""


@dataclass(frozen=True)
class Piece:
    """Bytes [start, end) of a file; the entire file if `part` is None."""

    file: Path
    start: int
    end: int
    part: int | None

    @property
    def name(self) -> str:
        return self.file.name if self.part is None else f"{self.file.name}.part-{self.part:03d}"


def cut(file: Path, size: int, limit: int) -> list[Piece]:
    """Split the file into pieces of at most `limit` bytes."""
    if size <= limit:
        return [Piece(file, 0, size, None)]
    starts = range(0, size, limit)
    return [Piece(file, start, min(start + limit, size), number) for number, start in enumerate(starts)]


def folders(pieces: Iterable[Piece], limit: int) -> list[list[Piece]]:
    """Distribute the pieces over folders of at most `limit` bytes, by first fit."""
    found: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda each: (each.start - each.end, each.name)):
        room = (each for each in found if sum(p.end - p.start for p in each) + piece.end - piece.start <= limit)
        fitting = next(room, None)
        if fitting is None:
            found.append([piece])
        else:
            fitting.append(piece)
    return found


def pinned(names: Sequence[str], constraints: Path) -> list[str]:
    """Requirements of these packages, in the versions that the project is tested with."""
    lines = dict(line.split("==") for line in constraints.read_text().splitlines() if "==" in line)
    return [f"{name}=={lines[name]}" for name in names]


def collect(requirements: Sequence[str], to: Path) -> list[Path]:
    """Collect a wheel for each requirement, for the GPU machine."""
    for requirement in requirements:
        platforms = [option for name in PLATFORMS for option in ("--platform", name)]
        command = ["download", "--no-deps", "--only-binary=:all:", "--python-version", PYTHON, *platforms]
        if pip(*command, "--dest", str(to), requirement) and pip("wheel", "--no-deps", "-w", str(to), requirement):
            raise SystemExit(f"{requirement}: no wheel for Python {PYTHON} exists, and none can be built here")
    wheels = sorted(to.glob("*.whl"))
    foreign = [wheel.name for wheel in wheels if not wheel.name.endswith(("-none-any.whl", "x86_64.whl"))]
    if foreign:
        raise SystemExit(f"built only for this machine's platform: {', '.join(foreign)}")
    return wheels


def pip(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pip", "-q", *arguments]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="made again")
    parser.add_argument("--also", nargs="*", default=[], metavar="NAME==VERSION")
    parser.add_argument("--file", nargs="*", default=[], type=Path, metavar="PATH")
    given = parser.parse_args()
    shutil.rmtree(given.to, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        wheels = collect([*pinned(MISSING, ROOT / "constraints.txt"), *given.also], Path(temporary))
        pieces = [piece for file in [*wheels, *given.file] for piece in cut(file, file.stat().st_size, LIMIT_BYTES)]
        for number, folder in enumerate(folders(pieces, LIMIT_BYTES), start=1):
            place = given.to / str(number)
            place.mkdir(parents=True)
            for piece in folder:
                with piece.file.open("rb") as file:
                    file.seek(piece.start)
                    (place / piece.name).write_bytes(file.read(piece.end - piece.start))
            print(f"{place}: {sum(p.end - p.start for p in folder) / 2**20:.1f} MiB, {len(folder)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
