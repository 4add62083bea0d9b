"""How often a process of ours that loads a model looks for garbage."""

from __future__ import annotations

import gc

_NEW_OBJECTS = 50_000
"""Python's default is 700 to 2,000. Importing torch and transformers makes millions of objects, and they all stay."""


def collect_rarely() -> None:
    """Collect cyclic garbage less often, in this process.

    Call it first in a process of our own, never in a library function: the setting is the process's. Saves about a
    sixth of the CPU time of importing what trains and serves.
    """
    gc.set_threshold(_NEW_OBJECTS, 20, 20)
