"""Runs that earlier versions made: deleted from and healed by this one, as a user does it, to the same stage ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3t_ray.ledger.values import StageState
from s3t_ray.runtime.run import Run
from tests.command import s3t
from tests.frozen import CERTIFICATE, CONFIG, PUBLIC_KEY, RUN, FrozenRun, frozen_runs


@pytest.mark.parametrize("frozen", frozen_runs(), ids=lambda frozen: frozen.name)
def test_an_old_run_is_checked_deleted_from_and_healed(frozen: FrozenRun, tmp_path: Path) -> None:
    facts, folder = frozen.facts, frozen.thaw(tmp_path)
    s3t("check-certificate", CERTIFICATE, "--public-key", PUBLIC_KEY, cwd=folder)
    assert json.loads(s3t("train", CONFIG, "--json", cwd=folder))["trained"] == 0

    s3t("delete", RUN, "--subject", facts.second_subject, cwd=folder)
    with Run.open(folder / RUN) as run:
        after = {row.id for row in run.ledger.stages(state=StageState.LIVE)}
    assert after == facts.adapters_after.keys() != facts.adapters.keys()

    known = ("--certificate", CERTIFICATE, "--public-key", PUBLIC_KEY)
    report = json.loads(s3t("audit", RUN, *known, "--json", cwd=folder))
    assert report["problems"] == [] and report["certificates"] == 2
    assert facts.second_subject.encode() not in b"".join(
        path.read_bytes() for path in (folder / RUN).rglob("*") if path.is_file()
    )
