"""Reads the stored states of the next micro-batches while the current one computes.

In: the records of each micro-batch in order, and the open files of their states. Out: their states, one buffer per
micro-batch, in the same order and with the same bits as if read on demand. At most `AHEAD` buffers wait. A read error
is raised when the micro-batch takes its states. `close` ends the thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from s3t_ray.train.examples import Item
from s3t_ray.train.hidden_states.hidden import SliceStates

AHEAD = 2
"""One would be enough if reads never stalled. Each buffer holds the states of a pack (13B, 8,192 tokens: 80 MiB)."""

THREAD = "hidden-states"


class ReadAhead:
    """Reads the states of packs in one background thread."""

    def __init__(
        self,
        packs: Iterator[Sequence[Item]],
        states: Mapping[int, SliceStates],
        hidden: int,
        dtype: torch.dtype,
        pinned: bool,
    ) -> None:
        """`packs`: this rank's micro-batches in order. `states`: by slice. `pinned`: use pinned memory, for a GPU."""
        self._packs = packs
        self._states = states
        self._hidden, self._dtype, self._pinned = hidden, dtype, pinned
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=THREAD)
        self._reading: deque[tuple[Sequence[Item], Future[Tensor]]] = deque()
        for _ in range(AHEAD):
            self._start_next()

    def take(self, items: Sequence[Item]) -> Tensor:
        """The states [T x D] of this micro-batch's records, one after another. Call it in the order of `packs`.

        Raises TrainError if stored states are damaged.
        """
        expected, future = self._reading.popleft()
        assert list(map(id, expected)) == list(map(id, items)), "micro-batches are taken in another order than read"
        self._start_next()
        return future.result()

    def close(self) -> None:
        """Stop the thread after its current buffer."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._reading.clear()

    def _start_next(self) -> None:
        items = next(self._packs, None)
        if items is None:
            return
        # Allocate here and not in the thread, where another GPU may be the current device.
        tokens = sum(len(item.tokens) for item in items)
        buffer = torch.empty(tokens, self._hidden, dtype=self._dtype, pin_memory=self._pinned)
        self._reading.append((items, self._pool.submit(self._fill, items, buffer)))

    def _fill(self, items: Sequence[Item], buffer: Tensor) -> Tensor:
        start = 0
        for item in items:
            end = start + len(item.tokens)
            self._states[item.slice].read(item.row, buffer[start:end])
            start = end
        return buffer
