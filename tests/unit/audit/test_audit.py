"""`audit` detects tampering with certificates and records, and passes an intact run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from s3t_ray.audit.audit import audit
from s3t_ray.config.load import dump_config
from s3t_ray.data.slices import Row, read_slice, write_slice
from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.proof.certificate import Certificate, issue
from s3t_ray.run import deletion
from s3t_ray.run.input.ingest import slice_digest
from s3t_ray.run.integrity.config_seal import seal_config
from s3t_ray.run.run import Run
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.unit.audit.tampering import found, problems, root, sql, writable


def test_an_untouched_run_passes(lived: Run) -> None:
    report = audit(lived)
    assert report.problems == () and report.result == "verified"
    assert (report.certificates, report.records, report.stages) == (2, 28, 12)
    assert report.head == lived.ledger.log_head().hash
    assert report.public_key == lived.ledger.certificates()[0].fingerprint


def test_a_run_in_the_middle_of_a_deletion_passes(lived: Run) -> None:
    with writable(lived) as run:
        deletion.accept(run, ["r5"], [])
    assert problems(lived) == ()


# Certificates


def test_an_edited_certificate(lived: Run) -> None:
    sql(lived, "UPDATE s3t_log SET entry = replace(entry, '\"records\":1', '\"records\":2') WHERE kind <> 'run'")
    found(lived, "does not have a valid signature")


def test_a_certificate_that_is_none(lived: Run) -> None:
    sql(lived, "UPDATE s3t_log SET entry = 'x' WHERE sequence = 4")
    found(lived, "certificate 4: this is not a certificate")


OLDER = (
    ('\'"format":"s3t/certificate/2"\', \'"format":"s3t/certificate/0"\'', "of format 's3t/certificate/0'"),
    ("'\"orders\":', '\"order\":'", "another version of s3t_ray"),
)


@pytest.mark.parametrize(("change", "part"), OLDER, ids=["named so", "a field less"])
def test_a_certificate_of_another_version(lived: Run, change: str, part: str) -> None:
    """Nobody can tell it from a forged one here, so it is told, in words that say both."""
    sql(lived, f"UPDATE s3t_log SET entry = replace(entry, {change}) WHERE sequence = 4")
    (one, other) = [line for line in problems(lived) if "certificate" in line]
    assert one.startswith("certificate 4: this says that it is of format")
    assert other.startswith("ledger: what stands as the certificate of deletion") and "cannot be read" in other
    with pytest.raises(VerificationFailed) as refused:
        lived.ledger.certificates()
    assert part in f"{refused.value.problem} {refused.value.fix}"


def test_a_history_of_an_older_version_that_does_not_name_adapters(lived: Run) -> None:
    sql(
        lived,
        "UPDATE s3t_events SET detail = json_remove(detail, '$.adapter_sha256') WHERE kind = 'stage_accepted'",
    )
    told = problems(lived)
    assert len(told) == len(lived.ledger.stages())
    assert all("was accepted by an older s3t_ray, whose history does not name its adapter" in line for line in told)


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (1, "the chain breaks"),
        (2, "has no receipt in the log"),
        (4, "is restored, but has no certificate"),
        (7, "is restored, but has no certificate"),
    ],
)
def test_a_dropped_certificate(lived: Run, number: int, part: str) -> None:
    sql(lived, f"DELETE FROM s3t_log WHERE sequence = {number}")
    found(lived, part)


def test_two_certificates_in_each_others_place(lived: Run) -> None:
    sql(
        lived,
        "UPDATE s3t_log SET sequence = 9, hash = 'x' WHERE sequence = 4",
        "UPDATE s3t_log SET sequence = 4 WHERE sequence = 7",
        "UPDATE s3t_log SET sequence = 7 WHERE sequence = 9",
    )
    found(lived, "is in the place of another")


def test_two_certificates_swapped_with_their_hashes_and_deletions(lived: Run) -> None:
    first, second = lived.ledger.log((EntryKind.CERTIFICATE,))
    sql(lived, "UPDATE s3t_log SET hash = 'h' || sequence, deletion = -deletion WHERE kind = 'certificate'")
    for sequence, row in ((first.sequence, second), (second.sequence, first)):
        sql(
            lived,
            "UPDATE s3t_log SET entry = ?, hash = ?, deletion = "
            "(SELECT sequence FROM s3t_deletions WHERE request_id = ?) WHERE sequence = ?",
            values=(row.text, row.hash, row.request_id, sequence),
        )
    found(lived, "is in the place of another")
    found(lived, "the chain breaks")


def test_a_certificate_forged_with_another_key(lived: Run) -> None:
    last = Certificate.model_validate_json(lived.ledger.log()[-1].text)
    forged = issue(last.facts, Keys(b"x" * 32), last.orders, last.software)
    sql(
        lived,
        "UPDATE s3t_log SET entry = ?, hash = ? WHERE sequence = 7",
        values=(forged.to_json(), forged.hash),
    )
    found(lived, "is signed by another key")


def test_another_public_key_for_the_auditors(lived: Run) -> None:
    (lived.location.keys_dir / "public.pem").write_bytes(Keys(b"x" * 32).public_key_pem)
    found(lived, "is not the run's public key")
    (lived.location.keys_dir / "public.pem").unlink()
    found(lived, "auditors have no public key")


def test_a_run_taken_back_as_a_whole_lacks_the_certificate_that_was_handed_out(lived: Run) -> None:
    first, second = (row.text for row in lived.ledger.log((EntryKind.CERTIFICATE,)))
    assert problems(lived, known=(first, second)) == ()
    newest = Certificate.model_validate_json(second)
    foreign = issue(newest.facts, Keys(b"x" * 32), newest.orders, {})
    assert any("another key" in line for line in problems(lived, known=(foreign.to_json(),)))
    sql(lived, "DELETE FROM s3t_log WHERE sequence = 7")
    assert any("was handed out, but is not in the log" in line for line in problems(lived, known=(first, second)))


def test_a_config_that_names_the_keys_and_the_ledger_of_somebody_else(lived: Run, tmp_path: Path) -> None:
    """Everything it names is consistent; only someone with the former key can detect it."""
    trusted = lived.keys.public_key_pem
    assert audit(lived, trusted_key=trusted).problems == ()
    forged = trained(tmp_path / "forged")
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(tmp_path / "forged" / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    named = yaml.safe_load(config.read_text()) | {"keys": {"dir": str(tmp_path / "forged" / "run.keys")}}
    config.write_text(yaml.safe_dump(named))
    assert forged.keys.public_key_pem != trusted
    with Run.open(tmp_path / "run") as forger:
        config.write_text(dump_config(forger.config))
        seal_config(forger)
    with Run.open(tmp_path / "run") as opened:
        assert audit(opened).problems == ()
        (problem,) = audit(opened, trusted_key=trusted).problems
        assert "is not the trusted one" in problem
        with pytest.raises(VerificationFailed, match="not PEM"):
            audit(opened, trusted_key=b"x")


def trained(folder: Path) -> Run:
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(10)])
    cluster = Cluster(small_config(folder))
    cluster.settle()
    return cluster.run


# Records


def rewrite(lived: Run, row: Row, *, whole: bool) -> None:
    """Add a row to a slice and have the ledger name the new file; `whole`: as a slice of this new digest."""
    state = max(lived.ledger.slices(0), key=lambda state: state.records)
    path = root(lived) / str(state.file)
    made = write_slice(path, [*read_slice(path), row])
    final = path.with_name(f"{made.sha256}.parquet")
    path.rename(final)
    file = str(final.relative_to(root(lived)))
    where = f"WHERE shard = 0 AND slice = {state.slice}"
    sql(lived, f"UPDATE s3t_slices SET file = ?, file_sha256 = ? {where}", values=(file, made.sha256))
    if whole:
        digest = slice_digest(final)
        sql(
            lived,
            f"UPDATE s3t_slices SET digest = ?, file_digest = ?, records = records + 1 {where}",
            values=(digest, digest),
        )


def a_row(lived: Run) -> Row:
    state = max(lived.ledger.slices(0), key=lambda state: state.records)
    return next(iter(read_slice(root(lived) / str(state.file))))


def test_a_row_added_to_a_slice(lived: Run) -> None:
    state = max(lived.ledger.slices(0), key=lambda state: state.records)
    path = root(lived) / str(state.file)
    write_slice(path, [*read_slice(path), Row("new", "{}", b"d" * 32)])
    found(lived, "its bytes are not those recorded in the ledger")


@pytest.mark.parametrize("whole", [False, True])
def test_a_row_added_to_a_slice_and_to_the_ledger(lived: Run, whole: bool) -> None:
    rewrite(lived, Row("new", json.dumps({"text": "x"}), b"d" * 32), whole=whole)
    found(lived, "1 rows whose content is not what their digest says")
    found(lived, "1 rows are of records that the ledger does not have there")


@pytest.mark.parametrize("whole", [False, True])
def test_a_row_doubled(lived: Run, whole: bool) -> None:
    """This needs no key, because the row contains its digest."""
    rewrite(lived, a_row(lived), whole=whole)
    found(lived, "retained records, but" if whole else "retained rows, but the ledger has")
    if whole:
        found(lived, "is in service, but does not follow from the retained data")


def test_a_row_with_a_genuine_digest_that_is_of_no_record(lived: Run) -> None:
    """Only the holder of the key can make one."""
    rewrite(lived, Row("new", "{}", lived.keys.record_digest("new", "{}")), whole=True)
    found(lived, "1 rows are of records that the ledger does not have there")


def test_a_tombstone_removed_before_the_purge(lived: Run) -> None:
    with writable(lived) as run:
        deletion.accept(run, ["r5"], [])
    sql(lived, "DELETE FROM s3t_tombstones")
    found(lived, "but 0 tombstones are left")
    found(lived, "retained rows, but the ledger has")


def test_a_tombstone_removed_after_the_purge(lived: Run) -> None:
    digest = lived.keys.record_digest("r3", "{}")
    sql(
        lived,
        "UPDATE s3t_records SET deletion = NULL, digest = ? WHERE id_hmac = ?",
        values=(digest, lived.keys.id_hmac("r3")),
    )
    found(lived, "but 0 tombstones are left")
    found(lived, "retained records, but")


def test_a_deleted_row_put_back(lived: Run) -> None:
    content = json.dumps({"instruction": "say r3", "input": "", "output": "this is r3"})
    rewrite(lived, Row("r3", content, lived.keys.record_digest("r3", content)), whole=False)
    found(lived, "1 rows are of records that the ledger does not have there")


def test_a_ledger_that_makes_no_sense(lived: Run) -> None:
    sql(lived, "UPDATE s3t_stages SET slices = 'one and two'")
    found(lived, "the ledger cannot be understood")


def test_another_recipe_in_the_config_or_in_the_ledger(lived: Run) -> None:
    config = root(lived) / "config.yaml"
    text = config.read_text()
    assert "epochs: 3" in text
    config.write_text(text.replace("epochs: 3", "epochs: 30"))
    with Run.open(root(lived)) as opened:
        found(opened, "config.yaml has another recipe")
    config.write_text(text)
    sql(
        lived,
        "UPDATE s3t_run SET recipe_json = replace(recipe_json, '\"optimizer.epochs\": 3', '\"optimizer.epochs\": 4')",
    )
    found(lived, "the ledger's recipe is not the one in the names of its stages")
