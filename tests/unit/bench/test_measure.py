"""Summaries of times and what is written of them."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest
from benchlib.measure import latency, side_by_side

from s3t_ray.sweep.result_file import save


def test_a_summary_of_times() -> None:
    found = latency([0.001 * number for number in range(1, 201)])
    assert astuple(found) == pytest.approx((200, 101, 199, 100.5))
    assert found.per_second == pytest.approx(1000 / 100.5)
    with pytest.raises(ValueError, match="nothing was measured"):
        latency([])


def test_calls_take_turns() -> None:
    seen: list[tuple[str, int]] = []
    found = side_by_side({name: lambda turn, name=name: seen.append((name, turn)) for name in ("a", "b")}, 3)  # type: ignore[misc]
    assert seen == [(name, turn) for turn in range(3) for name in ("a", "b")]
    assert {name: each.calls for name, each in found.items()} == {"a": 3, "b": 3}


def test_a_result_is_written_with_what_it_works_out_and_the_machine(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Inner:
        value: int

        @property
        def double(self) -> int:
            return 2 * self.value

    @dataclass(frozen=True)
    class Outer:
        parts: tuple[Inner, ...]

    written = json.loads(save(tmp_path / "new" / "result.json", Outer((Inner(2), Inner(3)))).read_text())
    assert written["parts"] == [{"value": 2, "double": 4}, {"value": 3, "double": 6}]
    assert written["machine"]["cores"] >= 1 and written["machine"]["load"] >= 0
