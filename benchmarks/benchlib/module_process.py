"""Runs modules of this library as separate processes, from any working folder.

In: a module's name and its arguments. Out: a command line, and the environment in which Python finds the module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
"""The folder that contains `benchlib`."""


def module_command(module: str, *arguments: object) -> list[str]:
    """`python -m benchlib.MODULE ARGUMENTS`, with this interpreter."""
    return [sys.executable, "-m", f"benchlib.{module}", *map(str, arguments)]


def library_environment() -> dict[str, str]:
    """This process's environment, with the library on PYTHONPATH."""
    path: Sequence[str] = [str(LIBRARY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
