"""The certificate page for a log that switched to another key, in a real Chromium, offline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect

from s3t_ray import __version__
from s3t_ray.proof.certificate_page import certificate_page
from s3t_ray.run import deletion
from s3t_ray.run.integrity.restore import restore
from s3t_ray.run.log.issued_certificates import entries_of, key_changes_of
from s3t_ray.run.log.key_change import change_key
from s3t_ray.run.run import Run
from tests.e2e.test_certificate_page import FAILS, browser, context, page, show
from tests.fakes import Cluster, fake_base, small_config, write_records

__all__ = ["browser", "context", "page"]


def test_a_key_that_took_a_restored_log_over_is_followed_and_a_forged_change_is_not(page: Page, tmp_path: Path) -> None:
    """The certificate is of the later key, its receipt too; the log's first entry and its checkpoints led there."""
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    config = small_config(tmp_path, ledger={"log_copy": str(tmp_path / "elsewhere")})
    made = Cluster(config)
    made.settle()
    made.run.ledger._database.forget_overwritten()
    shutil.copytree(tmp_path / "run", tmp_path / "backup")
    request = deletion.accept(made.run, ["r3"], []).request_id
    change_key(made.run, "rotation")
    made.run.close()
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "backup").rename(tmp_path / "run")
    with Run.open_unchecked(tmp_path / "run") as taken_back:
        restore(taken_back, lambda line: None)
    again = Cluster(config)
    again.settle()
    entries = (*entries_of(again.run, request), *key_changes_of(again.run))
    assert '"format":"s3t/key/2"' in entries[-1]
    again.run.close()
    show(page, tmp_path, certificate_page(entries, None, __version__))
    expect(page.locator("#verdict-title")).to_have_text("Genuine and unchanged")
    carried = json.loads(entries[-1])
    carried["facts"]["changes"] = [carried["facts"]["changes"][0].replace("rotation", "hand-over")]
    forged = json.dumps(carried, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    show(page, tmp_path, certificate_page((*entries[:-1], forged), None, __version__))
    expect(page.locator("#verdict-title")).to_have_text(FAILS)
