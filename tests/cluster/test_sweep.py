"""A sweep through real Ray Tune: a tiny Llama, two budgets in one run, nothing trained twice.

`test_jobs.py` trains two runs side by side.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.config.base_model import read_shape
from s3t_ray.config.schema import Config
from s3t_ray.sweep.choose import Need
from s3t_ray.sweep.objectives import Size
from s3t_ray.sweep.space import grid
from s3t_ray.sweep.sweep import Mode, sweep
from tests.fakes import small_config, write_records
from tests.tiny import tiny_llama


def one_shard(folder: Path, **fields: Any) -> Config:
    """One shard of two slices, of 12 records with 3 held out."""
    tiny_llama(folder / "base", layers=4)
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(12)])
    write_records(folder / "held.jsonl", [(f"h{number}", None) for number in range(3)])
    return small_config(
        folder,
        shards=1,
        slices=2,
        data={"path": str(folder / "data.jsonl"), "holdout_path": str(folder / "held.jsonl")},
        optimizer={"epochs": 1},
        workers={"groups": 1},
        **fields,
    )


@pytest.mark.usefixtures("ray_local")
def test_a_larger_budget_trains_only_what_the_smaller_lacks(tmp_path: Path) -> None:
    base = one_shard(tmp_path)
    size = Size(12, 30.0, 0.5, read_shape(tmp_path / "base"))
    told: list[str] = []
    found = sweep(
        base, grid(["budget=[2, 1]"]), tmp_path / "sweep", Need(1, None, 1.0), size, Mode.TRAIN, note=told.append
    )
    assert found.failures == {}
    small, large = found.outcomes
    assert (small.label, large.label) == ("budget 1", "budget 2") and small.root == large.root
    assert small.measured is not None and large.measured is not None
    assert (small.measured.trained_stages, small.measured.reused_stages) == (2, 0)
    assert (large.measured.trained_stages, large.measured.reused_stages) == (2, 2)
    for outcome in found.outcomes:
        assert outcome.measured is not None and len(outcome.measured.loss_by_depth) == 3
        assert outcome.loss_after(1) is not None
    # One sequence: the base's loss and the first stage's do not depend on the budget; the ensemble is the same.
    assert small.measured.loss_by_depth == pytest.approx(large.measured.loss_by_depth)
    written = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [each["label"] for each in written["outcomes"]] == ["budget 1", "budget 2"]
    assert found.picture.stat().st_size > 1000 and "use budget" in found.recommendation
    runs = [path for path in (tmp_path / "sweep").iterdir() if (path / "config.yaml").is_file()]
    assert [path.name for path in runs] == [small.root]
    assert any("trained 2 stages, shared 2" in line for line in told)

    # Again: what was measured is not measured again, and no smaller budget purges what a larger one trained.
    accepted = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*/stages/*/manifest.json")}
    told.clear()
    again = sweep(
        base, grid(["budget=[2, 1]"]), tmp_path / "sweep", Need(1, None, 1.0), size, Mode.TRAIN, note=told.append
    )
    assert again.outcomes == found.outcomes and "2 of 2 trials were already measured" in told
    assert accepted == {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*/stages/*/manifest.json")}
