"""The `s3t` command as a user runs it, in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def s3t(*arguments: str, code: int | tuple[int, ...] = 0, cwd: Path | None = None) -> str:
    """Output of the command. Fails, with all output, if its exit code is not (one of) `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "s3t_ray.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},  # this tree's code, wherever `cwd` is
    )
    assert done.returncode in ((code,) if isinstance(code, int) else code), (
        f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout
