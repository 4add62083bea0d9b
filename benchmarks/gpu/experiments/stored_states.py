"""Measures how long a step waits for stored hidden states from disk, through pinned buffers.

Trains the upper half of a ten-layer model as wide as Llama-2-13B from states on disk, outside the page cache: this
stage reads the most relative to its computing. For comparison, the same stage with the states in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any
from unittest import mock

from benchlib.random_base import SHAPES

from gpu.attention_choice import best_attention
from gpu.card import drop_from_page_cache
from gpu.points import Points
from gpu.scene import Scene
from gpu.stage_lab import Setup, StageLab, like_alpaca, merged


def run(points: Points, scene: Scene) -> None:
    device, work, dry = scene.device, scene.work, scene.dry
    shape = SHAPES["tiny"] if dry else SHAPES["13b"].model_copy(update={"layers": 20})
    setup = Setup(
        shape,
        slices=2,
        batch_records=4 if dry else 32,
        micro_batch_tokens=512 if dry else 8192,
        attention=best_attention(device),
        norms=device.fastest_norms,
    )
    if points.has("from disk", "from the page cache"):
        return
    lab = StageLab(setup, device, work)
    job = lab.jobs("states", like_alpaca(setup.batch_records * 6))[0]
    points.measure("first, states are made", lambda: _waiting(lab, job))
    for name in ("from disk", "from the page cache"):
        if name == "from disk":
            drop_from_page_cache(work / "run" / "hidden")
        points.measure(name, partial(_waiting, lab, lab.again(job, name.replace(" ", "-"))))
    lab.close()


def _waiting(lab: StageLab, job: Any) -> dict[str, Any]:
    with _waits() as waits:
        times = lab.time(job)
    return merged(
        times,
        states_bytes=times.tokens * lab.setup.shape.hidden * (2 if lab.device.on_gpu else 4),
        waited_seconds=sum(waits),
        longest_wait_seconds=max(waits),
        waited_share_of_steps=sum(waits[1:]) / (times.step_seconds * times.steps),
    )


@contextmanager
def _waits() -> Iterator[list[float]]:
    """Collects the seconds that each micro-batch waits for its states."""
    from s3t_ray.train.hidden_states.readahead import ReadAhead

    found: list[float] = []
    take = ReadAhead.take

    def timed(self: ReadAhead, items: Any) -> Any:
        began = perf_counter()
        states = take(self, items)
        found.append(perf_counter() - began)
        return states

    with mock.patch.object(ReadAhead, "take", timed):
        yield found
