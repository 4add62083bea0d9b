"""What `ray job submit --working-dir .` packs of this project's folder: Ray's own packer, on a folder like it."""

from __future__ import annotations

import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def test_only_jobs_and_benchmarks_are_packed(tmp_path: Path) -> None:
    project, archive = tmp_path / "project", tmp_path / "packed.zip"
    wanted = {"jobs/train.py", "jobs/my.yaml", "benchmarks/benchlib/deletion.py"}
    unwanted = {
        ".git/config",
        "alpaca.keys/master.key",
        "alpaca/ledger.db",
        "benchmarks/trial/ledger.db",
        "data.jsonl",
        "demo-run.keys/master.key",
        "jobs/alpaca.keys/master.key",
        "jobs/people.jsonl",
        "jobs/people.parquet",
        "s3t_ray/__init__.py",
    }
    for name in wanted | unwanted:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    for name in (".rayignore", ".gitignore"):
        (project / name).write_bytes((ROOT / name).read_bytes())
    packaging: Any = import_module("ray._private.runtime_env.packaging")
    packaging.create_package(str(project), archive, include_gitignore=True)
    with zipfile.ZipFile(archive) as packed:
        files = {name for name in packed.namelist() if not name.endswith("/")}
    assert files == wanted
