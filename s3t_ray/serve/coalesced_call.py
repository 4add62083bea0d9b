"""Coalesces concurrent calls of a function: one call runs at a time, and one follows the last request.

A request during a call does not wait: a single further call serves all such requests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class CoalescedCall:
    """Any thread may request the call; one of them makes it."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._at_work = threading.Lock()
        self._wanted = threading.Event()

    def __call__(self) -> None:
        """Make the call, and repeat it for requests during it. Returns immediately if another thread is calling."""
        self._wanted.set()
        while self._wanted.is_set() and self._at_work.acquire(blocking=False):
            try:
                self._wanted.clear()
                self._act()
            finally:
                self._at_work.release()
