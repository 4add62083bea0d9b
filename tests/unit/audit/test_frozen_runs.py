"""Runs of earlier versions: read, checked and planned by this version without Ray."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.config.base_model import digest_base
from s3t_ray.config.recipe import recipe
from s3t_ray.errors import VerificationFailed
from s3t_ray.plan.identity import recipe_digest
from s3t_ray.proof.run_log import verify_certificate
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from s3t_ray.store.published_stage import read_manifest
from tests.frozen import CERTIFICATE, PUBLIC_KEY, RUN, Facts, FrozenRun, frozen_runs


@pytest.fixture(scope="module", params=frozen_runs(), ids=lambda frozen: frozen.name)
def thawed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Facts]:
    frozen: FrozenRun = request.param
    folder = frozen.thaw(tmp_path_factory.mktemp(frozen.name))
    return folder, frozen.facts


def test_a_run_was_frozen() -> None:
    assert frozen_runs()


def test_its_recipe_and_its_stage_ids_are_what_they_were(thawed: tuple[Path, Facts]) -> None:
    folder, facts = thawed
    with Run.open(folder / RUN) as run:
        assert recipe_digest(recipe(run.config, digest_base(run.base))) == facts.recipe_digest == run.row.recipe_digest
        views = [view_shard(run, shard) for shard in range(run.row.shards)]
        wanted = {name for view in views for name in view.plan.stages}
        assert wanted == facts.adapters.keys() == {name for view in views for name in view.live}
        rows = {row.id: row.adapter_sha256 for row in run.ledger.stages() if row.id in wanted}
        assert rows == facts.adapters
        for name, sha256 in facts.adapters.items():
            assert read_manifest(run.store, name).adapter_sha256 == sha256
        assert len(run.ledger.exports.all()) == 1


def test_an_audit_says_what_older_versions_did_not_cover(thawed: tuple[Path, Facts]) -> None:
    folder, _ = thawed
    with Run.open(folder / RUN, read_only=True) as run:
        told = audit(run).problems
    assert all("no seals" in line or "no worker of this run sealed" in line for line in told)


def test_an_audit_finds_nothing_once_its_owner_has_opened_it(thawed: tuple[Path, Facts], tmp_path: Path) -> None:
    frozen, facts = thawed
    folder = tmp_path / "opened"
    shutil.copytree(frozen, folder)
    with Run.open(folder / RUN) as older:
        Run.create(older.config).close()
    with Run.open(folder / RUN, read_only=True) as run:
        trusted = (folder / PUBLIC_KEY).read_bytes()
        report = audit(run, known=[(folder / CERTIFICATE).read_text()], trusted_key=trusted)
    assert report.problems == ()
    assert (report.certificates, report.stages) == (1, len(facts.adapters))


def test_an_audit_finds_a_byte_that_was_changed(thawed: tuple[Path, Facts], tmp_path: Path) -> None:
    folder, facts = thawed
    name = min(facts.adapters)
    adapter = folder / RUN / "stages" / name / "adapter_model.safetensors"
    before = adapter.read_bytes()
    adapter.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with Run.open(folder / RUN) as run:
            assert any(name[:12] in problem for problem in audit(run).problems)
    finally:
        adapter.write_bytes(before)


def test_its_certificate_is_genuine(thawed: tuple[Path, Facts]) -> None:
    folder, facts = thawed
    text, key = (folder / CERTIFICATE).read_text().strip(), (folder / PUBLIC_KEY).read_bytes()
    certificate = verify_certificate(text, key)
    assert certificate.hash == facts.certificate_hash
    assert certificate.facts.request_id == facts.request_id
    live = {stage.id: stage.adapter_sha256 for stage in certificate.facts.stages_live}
    assert live and live.items() <= facts.adapters.items()
    with pytest.raises(VerificationFailed):
        verify_certificate(text.replace(facts.request_id, facts.request_id[::-1]), key)


def test_its_people_are_known_by_its_keys(thawed: tuple[Path, Facts]) -> None:
    folder, facts = thawed
    with Run.open(folder / RUN) as run:
        gone = deletion.preview(run, [], [facts.deleted_subject])
        assert (gone.records, gone.unknown_subjects) == (0, ())
        assert deletion.preview(run, [], [facts.second_subject]).records > 0
