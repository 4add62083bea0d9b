"""Freeze a run of this version, as a compatibility test for later versions; part of every release (docs/releasing.md).

    python -m tools.freeze_run

Writes tests/data/run-VERSION.tar.xz and run-VERSION.json. The archive contains a tiny random Llama, records, the
config, and a real run created with the user's commands: 2 shards x 2 slices x 2 sequences, held-out records, a row that
ingest set aside, an export, and one deletion up to its certificate. The JSON file records what versions must reproduce:
stage ids and adapters, before and after a second deletion on a copy of the run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

from s3t_ray import __version__
from s3t_ray.config.recipe import RECIPE_FORMAT
from s3t_ray.ledger.values import StageState
from s3t_ray.proof.run_log import verify_certificate
from s3t_ray.run.run import Run
from tests.fakes import write_records
from tests.frozen import CERTIFICATE, CONFIG, DATA, RECORDS, RUN, Facts, move_paths
from tests.tiny import tiny_llama

PEOPLE, RECORDS_EACH = 20, 2
DELETED, SECOND = "person-2", "person-4"


def main() -> None:
    name = f"run-{__version__}"
    with tempfile.TemporaryDirectory(prefix="s3t-freeze-") as made:
        folder = Path(made, "frozen")
        folder.mkdir()
        _prepare(folder)
        _s3t(folder, "train", CONFIG)
        request = json.loads(_s3t(folder, "delete", RUN, "--subject", DELETED, "--no-wait", "--json"))["request_id"]
        _s3t(folder, "train", CONFIG)
        _s3t(folder, "certificate", RUN, request, "--out", CERTIFICATE)
        _s3t(folder, "export", RUN, "--shard", "0", "exported")
        shutil.rmtree(folder / "exported")  # the ledger remembers it; its files need not travel
        adapters = _adapters(folder)
        later = Path(made, "later")
        shutil.copytree(folder, later)
        move_paths(later, str(folder))
        _s3t(later, "delete", RUN, "--subject", SECOND)
        facts = _facts(folder, request, adapters, _adapters(later))
        DATA.mkdir(exist_ok=True)
        with tarfile.open(DATA / f"{name}.tar.xz", "w:xz", preset=9) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.add(path, path.relative_to(folder).as_posix(), filter=_anonymous)
        (DATA / f"{name}.json").write_text(facts.dump())


def _prepare(folder: Path) -> None:
    """Base, records and config."""
    tiny_llama(folder / "base", layers=4, hidden=32, vocab=300)
    names = [f"person-{number}" for number in range(PEOPLE)] * RECORDS_EACH
    write_records(folder / RECORDS, [(f"r{number}", name) for number, name in enumerate(names)])
    with (folder / RECORDS).open("a") as file:
        file.write(json.dumps({"id": "set-aside", "subject": "person-0", "output": "it has no instruction"}) + "\n")
    write_records(folder / "held.jsonl", [("h0", None), ("h1", "person-1")])
    document = {
        "name": "frozen",
        "shards": 2,
        "slices": 2,
        "budget": 2,
        "model": {"path": str(folder / "base")},
        "data": {
            "path": str(folder / RECORDS),
            "subject_field": "subject",
            "partition_by": "subject",
            "holdout_path": str(folder / "held.jsonl"),
            "on_malformed": "set_aside",
        },
        "lora": {"layers_per_group": 2, "rank": 2, "dropout": 0.1},
        "optimizer": {"epochs": 1, "lr": 0.01},
        "workers": {"groups": 1},
        "storage": {"uri": str(folder / RUN)},
    }
    (folder / CONFIG).write_text(yaml.safe_dump(document, sort_keys=False))


def _s3t(folder: Path, *arguments: str) -> str:
    """The command, as a user in `folder` types it; its output."""
    here = {"PYTHONPATH": str(DATA.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "s3t_ray.cli.main", *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | here, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _adapters(folder: Path) -> dict[str, str]:
    with Run.open(folder / RUN) as run:
        return {row.id: row.adapter_sha256 for row in run.ledger.stages(state=StageState.LIVE)}


def _facts(folder: Path, request: str, adapters: dict[str, str], after: dict[str, str]) -> Facts:
    certificate = verify_certificate((folder / CERTIFICATE).read_text().strip())
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=DATA.parent, check=True, stdout=subprocess.PIPE, text=True
    )
    if set(adapters.values()) & {sha256 for name, sha256 in after.items() if name not in adapters}:
        raise RuntimeError("the deletion changed no adapter: these records teach nothing")
    return Facts(
        folder=str(folder),
        version=__version__,
        commit=commit.stdout.strip(),
        recipe_format=RECIPE_FORMAT,
        recipe_digest=certificate.facts.recipe_digest,
        request_id=request,
        certificate_hash=certificate.hash,
        deleted_subject=DELETED,
        adapters=dict(sorted(adapters.items())),
        second_subject=SECOND,
        adapters_after=dict(sorted(after.items())),
    )


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the name and the clock of whoever made it."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
