"""The programs of `examples/` that need a run, on one that an earlier version made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.command import ROOT, s3t
from tests.frozen import CONFIG, PUBLIC_KEY, RUN, frozen_runs


def example(name: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_person_is_deleted_and_the_adapter_used_elsewhere(tmp_path: Path) -> None:
    frozen = frozen_runs()[-1]
    folder = frozen.thaw(tmp_path)
    s3t("train", CONFIG, cwd=folder)  # seals a run of an older version
    said = example("delete_a_person.py", RUN, frozen.facts.second_subject, "--out", "c.json", cwd=folder)
    assert "restored; the certificate is in c.json" in said
    assert example("check_a_certificate.py", "c.json", PUBLIC_KEY, cwd=folder).startswith("signed by this key")
    s3t("export", RUN, "--shard", "0", "out", cwd=folder)
    assert example("use_an_export.py", "base", "out", "Say hello.", cwd=folder).endswith("\n")
