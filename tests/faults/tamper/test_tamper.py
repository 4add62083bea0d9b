"""Every kind of tampering, by whoever can write the storage, the ledger or both, but has no key: caught, or listed.

`python -m tests.faults.tamper.table` writes docs/tampering.md from the same cells.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.errors import LedgerError
from s3t_ray.run.run import Run
from tests.faults.tamper.judge import MISSED, judged
from tests.faults.tamper.ledger_kinds import statements
from tests.faults.tamper.lived import MOMENTS, Moment, fork, live
from tests.faults.tamper.not_covered import NOTHING_THERE, REASONS
from tests.faults.tamper.table import PAGE, Cells, judge_all, page

ASKED = 75 + 40
"""The kinds that were tried before this harness, and as many more as were asked for."""


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Moment]:
    return live(tmp_path_factory.mktemp("tamper"))


@pytest.fixture(scope="module")
def cells(moments: dict[str, Moment]) -> Cells:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3t_ray.audit.leftovers.ACCEPTANCE_SECONDS", 0.0)
        return judge_all(moments)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_untouched_run_passes(moments: dict[str, Moment], moment: str) -> None:
    assert judged(moments[moment], lambda root: True) == MISSED


def test_every_tampering_is_caught_or_listed_with_its_reason(cells: Cells) -> None:
    assert len(cells) >= ASKED
    missed = {kind for (_, kind), row in cells.items() if MISSED in row.values()}
    assert missed - REASONS.keys() == set(), "these are neither caught nor listed"
    assert REASONS.keys() - missed == set(), "these are listed, and caught at every moment"
    idle = [kind for (_, kind), row in cells.items() if set(row.values()) == {NOTHING_THERE}]
    assert idle == [], "these were never tried"


def test_a_run_whose_seals_were_taken_off_loses_nothing_when_it_is_refused(
    moments: dict[str, Moment], tmp_path: Path
) -> None:
    root = fork(moments["idle"], tmp_path)
    statements("UPDATE s3t_records SET seal = NULL", "UPDATE s3t_run SET seal = NULL")(root)
    before = sorted(path for path in root.rglob("*.safetensors"))
    assert any("hidden" in path.parts for path in before)
    with Run.open(root) as run, pytest.raises(LedgerError, match="seals of the ledger's rows were taken off"):
        run.seal()
    assert sorted(path for path in root.rglob("*.safetensors")) == before


def test_the_page_says_what_was_found(cells: Cells) -> None:
    assert Path(PAGE).read_text() == page(cells), "write it again: python -m tests.faults.tamper.table"
