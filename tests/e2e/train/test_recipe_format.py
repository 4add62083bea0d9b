"""RECIPE_FORMAT must change when the code changes weights: small trainings give the results frozen for its value.

On hardware and library versions that were frozen, to the bit. On others bits differ by rounding, so there a sketch of
the weights must agree within a tolerance: rounding stays far below it, a learning rate that is 1% higher far above; a
change smaller than it is seen on frozen machines only. 8-bit and bfloat16 cases are compared by their losses. Where
torch's generator draws other dropout masks (on other makes of CPU), the case with dropout only has to repeat itself.
tools/freeze_recipe.py adds a machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.config.recipe import RECIPE_FORMAT
from tests.e2e.train.recipe_cases import CASES, WITH_DROPOUT, Frozen, dropout_mask, run_case


@pytest.fixture(scope="module")
def frozen() -> Frozen:
    return Frozen.load()


def test_the_present_format_is_frozen(frozen: Frozen) -> None:
    assert frozen.recipe_format == RECIPE_FORMAT, "run: python -m tools.freeze_recipe"
    assert frozen.outcomes.keys() == set(CASES)
    assert frozen.machines and all(digests.keys() == set(CASES) for _, digests in frozen.machines)


@pytest.mark.parametrize("name", CASES)
def test_the_code_trains_what_its_format_says(name: str, frozen: Frozen, tmp_path: Path) -> None:
    outcome, here = run_case(name, tmp_path / "first")
    digests = frozen.digests_under(here)
    if digests is not None:
        assert outcome.digest == digests[name], "weights changed: undo that, or raise RECIPE_FORMAT (docs/releasing.md)"
    elif name in WITH_DROPOUT and frozen.dropout_mask != dropout_mask():
        assert run_case(name, tmp_path / "second")[0] == outcome
    else:
        assert frozen.agrees(name, outcome), "weights changed: undo that, or raise RECIPE_FORMAT (docs/releasing.md)"


@pytest.mark.parametrize("name", ["defaults", "bert"])
def test_both_comparisons_see_a_small_change(name: str, frozen: Frozen, tmp_path: Path) -> None:
    outcome, _ = run_case(name, tmp_path, {"lr": 0.0101})
    assert not frozen.agrees(name, outcome)
    assert outcome.digest not in [digests[name] for _, digests in frozen.machines]


def test_a_manifest_tells_nothing_of_our_own_sources(tmp_path: Path) -> None:
    """A comment added to a source file must not change the verdict of a replay."""
    _, here = run_case("defaults", tmp_path)
    assert {
        "torch",
        "transformers",
        "tokenizers",
        "peft",
        "deepspeed",
        "python",
        "cpu",
        "cpu_id",
        "libc",
    } <= here.keys()
    assert here.keys().isdisjoint({"engine", "s3t_ray", "system"})
