"""Runs of earlier versions: deletions and healing by this version, as a user does it, give the same stage ids.

Then what a replay proves of stages of then and of now, and of one that was swapped by a writer of the ledger.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from s3t_ray.audit.verdict import mismatches
from s3t_ray.ledger.values import StageState
from s3t_ray.run.run import Run
from s3t_ray.store.layout import MANIFEST
from s3t_ray.store.manifest import ADAPTER_FILE, Manifest, write_manifest
from tests.command import s3t
from tests.frozen import CERTIFICATE, CONFIG, PUBLIC_KEY, RUN, Facts, FrozenRun, frozen_runs

LEDGER = "ledger.db"


@dataclass(frozen=True)
class Healed:
    """A frozen run, with the second person deleted and all trained again."""

    folder: Path
    facts: Facts

    def manifest(self, stage: str) -> Manifest:
        return Manifest.model_validate_json((self.folder / RUN / "stages" / stage / MANIFEST).read_text())

    @property
    def of_then(self) -> str:
        """A stage that the earlier version trained."""
        return min(self.facts.adapters.keys() & self.facts.adapters_after.keys())

    @property
    def of_now(self) -> str:
        """A stage that this version trained, on this machine."""
        return min(self.facts.adapters_after.keys() - self.facts.adapters.keys())

    def replay(self, code: int | tuple[int, ...], unsealed: str | None = None) -> dict[str, str]:
        """Retrain all live stages. Returns their verdicts. Only the seal of the manifest `unsealed` is broken."""
        report = json.loads(s3t("verify", RUN, "--replay", "8", "--json", code=code, cwd=self.folder))
        if unsealed is None:
            assert report["problems"] == []
        else:
            (problem,) = report["problems"]
            assert unsealed[:12] in problem and "not what a worker of this run sealed" in problem
        return {stage["stage_id"]: stage["verdict"] for stage in report["replayed"]}


@pytest.fixture(scope="module", params=frozen_runs(), ids=lambda frozen: frozen.name)
def healed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Healed:
    frozen: FrozenRun = request.param
    folder = frozen.thaw(tmp_path_factory.mktemp(frozen.name))
    assert json.loads(s3t("train", CONFIG, "--json", cwd=folder))["trained"] == 0
    s3t("delete", RUN, "--subject", frozen.facts.second_subject, cwd=folder)
    return Healed(folder, frozen.facts)


def test_its_certificate_is_checked_offline(healed: Healed) -> None:
    s3t("check-certificate", CERTIFICATE, "--public-key", PUBLIC_KEY, cwd=healed.folder)


def test_it_is_healed_to_the_same_stage_ids(healed: Healed) -> None:
    facts = healed.facts
    with Run.open(healed.folder / RUN) as run:
        after = {row.id for row in run.ledger.stages(state=StageState.LIVE)}
    assert after == facts.adapters_after.keys() != facts.adapters.keys()
    known = ("--certificate", CERTIFICATE, "--public-key", PUBLIC_KEY)
    report = json.loads(s3t("audit", RUN, *known, "--json", cwd=healed.folder))
    assert report["problems"] == [] and report["certificates"] == 2
    for path in (healed.folder / RUN).rglob("*"):
        assert not path.is_file() or facts.second_subject.encode() not in path.read_bytes()


def test_a_replay_proves_its_stages_or_says_that_it_cannot(healed: Healed) -> None:
    """Bitwise equal on the original hardware and libraries; elsewhere an old stage may be "not proved"."""
    elsewhere = mismatches(healed.manifest(healed.of_then), healed.manifest(healed.of_now))
    verdicts = healed.replay(code=(0, 10) if elsewhere else 0)
    assert verdicts.keys() == healed.facts.adapters_after.keys()
    assert verdicts[healed.of_now] == "equal"
    assert set(verdicts.values()) <= ({"equal", "not_proved"} if elsewhere else {"equal"})


def test_an_auditor_replays_a_copy_without_the_runs_secret(healed: Healed, tmp_path: Path) -> None:
    """Simulates another machine: only the copy of the run, its base and its public key are available."""
    copy, base = tmp_path / "copy", tmp_path / "the-base"
    shutil.copytree(healed.folder / RUN, copy)
    with Run.open(healed.folder / RUN, read_only=True) as run:
        shutil.copytree(run.base_folder, base)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "auditor.key").write_bytes(secret)
    (tmp_path / "auditor.key").chmod(0o600)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "auditor.pem").write_bytes(public)
    known = ("--public-key", str(healed.folder / PUBLIC_KEY))
    before = listed(copy)
    s3t("verify", str(copy), "--as-auditor", "auditor.key", *known, "--base", str(base), "--replay", "2",
        "--out", "statement.json", code=(0, 10), cwd=tmp_path)  # fmt: skip
    assert listed(copy) == before
    told = s3t("check-statement", "statement.json", "--auditor-key", "auditor.pem", *known, "--json", code=(0, 10),
               cwd=tmp_path)  # fmt: skip
    facts = json.loads(told)
    assert facts["problems"] == [] and facts["run_id"] == json.loads((copy / "run.json").read_text())["run_id"]
    replayed = {stage["stage"]: stage for stage in facts["replayed"]}
    assert len(replayed) == 2 and replayed.keys() <= healed.facts.adapters_after.keys()
    for name, stage in replayed.items():
        assert stage["adapter_sha256"] == healed.manifest(name).adapter_sha256
        assert stage["verdict"] == "equal" or (stage["verdict"] == "not_proved" and stage["mismatches"])


def listed(folder: Path) -> dict[str, tuple[int, int, str]]:
    """All contents of a folder, with the times of their last change."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted([folder, *folder.rglob("*")])
    }


def test_a_swapped_adapter_is_never_verified(healed: Healed) -> None:
    """An attacker who swaps it updates its digest everywhere. A claim that it was trained elsewhere proves nothing."""
    name = healed.of_now
    stage = healed.folder / RUN / "stages" / name
    tensors = safetensors.torch.load_file(stage / ADAPTER_FILE)
    first = min(tensors)
    tensors[first] = tensors[first] + 0.5
    safetensors.torch.save_file(tensors, stage / ADAPTER_FILE, {"format": "pt"})
    sha256 = hashlib.sha256((stage / ADAPTER_FILE).read_bytes()).hexdigest()
    manifest = healed.manifest(name)
    swapped = manifest.model_copy(update={"adapter_sha256": sha256, "files": {**manifest.files, ADAPTER_FILE: sha256}})
    (stage / MANIFEST).write_bytes(write_manifest(swapped))
    with sqlite3.connect(healed.folder / RUN / LEDGER) as ledger:
        ledger.execute("UPDATE s3t_stages SET adapter_sha256 = ? WHERE id = ?", (sha256, name))
    ledger.close()

    other_version = {**manifest.versions, "s3t_ray": "9.9.9", "engine": "0123456789abcdef"}
    (stage / MANIFEST).write_bytes(write_manifest(swapped.model_copy(update={"versions": other_version})))
    assert healed.replay(code=8, unsealed=name)[name] == "differs"

    other_machine = {**manifest.machine, "cpu": "another"}
    (stage / MANIFEST).write_bytes(write_manifest(swapped.model_copy(update={"machine": other_machine})))
    assert (
        healed.replay(code=8, unsealed=name)[name] == "not_proved"
    )  # the replay cannot detect it, but the seal of the manifest can
