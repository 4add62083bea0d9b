"""The comparison's course: what both systems train, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchlib.course import Course, share_out
from benchlib.engine_run import prefixes
from benchlib.instructions import instructions

from s3t_ray.errors import ConfigError, DataError


def course(**changes: Any) -> Course:
    fields: dict[str, Any] = {
        "base": Path("base"),
        "orders": ((0, 1, 2), (0, 2, 1)),
        "layers": 6,
        "layers_per_group": 2,
        "rank": 4,
        "alpha": 8,
        "lr": 1e-3,
        "epochs": 2,
        "batch_records": 2,
        "max_tokens": 64,
        "seed": 0,
        **share_out([str(number) for number in range(20)], 2, 3, 3, 2),
    }
    return Course(**fields | changes)


def test_records_are_shared_out_once() -> None:
    found = course()
    taken = [each for shard in found.shards for piece in shard for each in piece]
    assert len(taken) == len(set(taken)) == 18 and not set(taken) & set(found.held_out)
    with pytest.raises(ConfigError, match="20 records are needed, but there are 5"):
        share_out(["a"] * 5, 2, 3, 3, 2)


def test_visits_and_stages_are_those_of_every_sequence() -> None:
    found = course()
    assert found.stages == 2 * 2 * 3
    assert found.record_visits == 2 * 2 * 2 * (3 + 6 + 9)  # epochs x shards x sequences x records by depth
    # The two orders share their first stage, so the engine trains 5 a shard.
    assert len(prefixes(found)) == 2 * 5
    assert prefixes(found)[0] == (0, (0,))


def test_modules_are_those_of_the_group_counted_from_the_top() -> None:
    found = course().modules(2)
    assert len(found) == 2 * 7
    assert found[0] == "model.layers.2.self_attn.q_proj" and found[-1] == "model.layers.3.mlp.down_proj"


def test_instructions_are_many_and_in_an_order_of_their_own(tmp_path: Path) -> None:
    found = instructions(None)
    assert len(found) > 300 and found == instructions(None) and found != sorted(found)
    file = tmp_path / "data.json"
    file.write_text('[{"instruction": "a", "output": "b"}, {"instruction": "c", "input": "", "output": ""}]')
    assert instructions(file) == ['{"input": "", "instruction": "a", "output": "b"}']
    file.write_text('{"a": 1}')
    with pytest.raises(DataError, match="not a list of instructions"):
        instructions(file)
