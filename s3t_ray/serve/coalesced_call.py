"""One call on its way at a time, for however many want it. In: what to do. Out: it is done after the last who asked.

Whoever asks while a call is on its way does not wait: one more call follows it, for all of them together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class CoalescedCall:
    """Any thread may ask; the call is made by one of them."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._at_work = threading.Lock()
        self._wanted = threading.Event()

    def __call__(self) -> None:
        """Make the call, and again while others have asked meanwhile; returns at once where another is at it."""
        self._wanted.set()
        while self._wanted.is_set() and self._at_work.acquire(blocking=False):
            try:
                self._wanted.clear()
                self._act()
            finally:
                self._at_work.release()
