"""Every kind of tampering, by whoever can write the storage, the ledger or both, but has no key: caught, or listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.tamper.judge import MISSED, all_kinds, judged
from tests.faults.tamper.lived import MOMENTS, Moment, live
from tests.faults.tamper.not_covered import NOTHING_THERE, REASONS


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Moment]:
    return live(tmp_path_factory.mktemp("tamper"))


@pytest.mark.parametrize("name", MOMENTS)
def test_every_tampering_is_caught_or_listed(
    moments: dict[str, Moment], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("s3t_ray.audit.leftovers.ACCEPTANCE_SECONDS", 0.0)
    moment = moments[name]
    assert judged(moment, lambda root: True) == MISSED, "an untouched run passes"
    cells = {(who, kind): judged(moment, apply) for who, kind, apply in all_kinds()}
    assert len(cells) >= 115
    missed = sorted(f"{who}: {kind}" for (who, kind), cell in cells.items() if cell == MISSED and kind not in REASONS)
    assert missed == []
    assert [kind for (_, kind), cell in cells.items() if cell not in (MISSED, NOTHING_THERE) and kind in REASONS] == []
