"""Sealed rows: records moved to another person are refused and reported; old runs are sealed once."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.resolve import NamedRows
from s3t_ray.ledger.values import ExportedFolder
from s3t_ray.proof.run_entry import RunEntry
from s3t_ray.proof.run_log import parse_entry
from tests.unit.ledger.certify import CIRCUMSTANCES, certify
from tests.unit.ledger.world import name, purge, record


def edit(ledger: Ledger, *statements: str) -> None:
    with ledger._database.write() as tx:
        for statement in statements:
            assert tx.connection.execute(text(statement)).rowcount, statement


SWAP = (
    "UPDATE s3t_records SET subject_hmac = (SELECT max(subject_hmac) FROM s3t_records) "
    "WHERE subject_hmac = (SELECT min(subject_hmac) FROM s3t_records)"
)


def test_a_record_that_was_given_to_another_person_is_not_deleted_for_them(ledger: Ledger) -> None:
    edit(ledger, SWAP)
    with ledger._database.read() as connection:
        person = connection.execute(text("SELECT max(subject_hmac) FROM s3t_records")).scalar()
    assert isinstance(person, bytes | memoryview)
    with pytest.raises(LedgerError, match="were changed outside the run; nothing was deleted"):
        ledger.accept_deletion([], [bytes(person)])
    assert ledger.deletions() == () and [row.kind for row in ledger.log()] == ["run"]
    assert any("another id, subject or place" in line for line in ledger.contradictions())


def test_a_purge_leaves_the_seals_true(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 1, 0)]).receipt.request_id
    purge(ledger, epoch, request)
    assert [line for line in ledger.contradictions() if "seal" in line] == []


def test_a_run_of_an_older_version_is_sealed_once_and_says_so(ledger: Ledger) -> None:
    edit(ledger, "UPDATE s3t_records SET seal = NULL", "UPDATE s3t_run SET seal = NULL", "DELETE FROM s3t_log")
    assert not ledger.is_sealed()
    assert any("is not covered until" in line for line in ledger.contradictions())
    ledger.accept_deletion([record(0, 0, 0)], [name("subject", "ann")])
    assert ledger.seal() and ledger.is_sealed() and not ledger.seal()
    begun = parse_entry(ledger.log()[-1].text)
    assert isinstance(begun, RunEntry) and begun.facts.sealed == "upgrade"
    assert begun.facts.ledger_sequence == ledger.events()[-1].seq
    assert ledger.contradictions() == ()


@pytest.mark.parametrize(
    "first", [(), ("DELETE FROM s3t_log WHERE kind = 'run'",)], ids=["log", "log without its first"]
)
def test_seals_that_were_taken_off_are_not_set_anew(ledger: Ledger, first: tuple[str, ...]) -> None:
    """Else whoever moved a record to another person would have the run's own keys sign it."""
    ledger.accept_deletion([record(0, 1, 0)])
    edit(ledger, SWAP, "UPDATE s3t_records SET seal = NULL", "UPDATE s3t_run SET seal = NULL", *first)
    with pytest.raises(LedgerError, match="seals of the ledger's rows were taken off"):
        ledger.seal()
    with pytest.raises(LedgerError, match="seals of the ledger's rows were taken off"):
        ledger.accept_deletion([record(0, 0, 0)])
    assert not ledger.is_sealed() and len(ledger.deletions()) == 1


def test_a_deletion_that_was_only_written_down_is_not_reported_as_done(ledger: Ledger) -> None:
    """Who writes its row in advance would keep the record, and have the person told that it is gone."""
    request = NamedRows.of([record(0, 0, 0)], []).digest
    columns = "sequence, request_id, request_digest, state, records, already_deleted, unknown, accepted_at"
    values = f"99, '{request[:16]}', '{request}', 'restored', 1, 0, 0, '2030-01-01T00:00:00.000000+00:00'"
    edit(ledger, f"INSERT INTO s3t_deletions ({columns}) VALUES ({values})")
    with pytest.raises(LedgerError, match="still retains 1 of the records that it names"):
        ledger.accept_deletion([record(0, 0, 0)])


def test_a_final_certificate_before_its_time_ends_the_scheduler(ledger: Ledger) -> None:
    """Else it would certify in every step of a round, and the deletion would never be restored."""
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 1, 0)]).receipt.request_id
    purge(ledger, epoch, request)
    ledger.certify(epoch, request, CIRCUMSTANCES, final=False)
    edit(ledger, "UPDATE s3t_log SET kind = 'certificate' WHERE kind = 'interim'")
    with pytest.raises(LedgerError, match="is purged but already has its final certificate"):
        certify(ledger, epoch, request)


@pytest.mark.parametrize("said", ["zzz", "2026-01-01", "2026-01-01T00:00:00.000000+02:00", "9999"])
def test_a_clock_that_holds_no_time_is_refused_before_anything_is_signed(ledger: Ledger, said: str) -> None:
    """Nothing keyed covers it, and every signed time would follow from it."""
    with ledger._database._writer.connect() as connection, connection.begin():
        connection.execute(text("UPDATE s3t_head SET at = :said"), {"said": said})
    with pytest.raises(LedgerError, match="which is not a time"):
        ledger.accept_deletion([record(0, 0, 0)])
    assert ledger.deletions() == ()
    assert any("which is not a time" in line for line in ledger.contradictions())


def test_a_clock_that_was_set_ahead_or_back_is_told(ledger: Ledger) -> None:
    ledger.accept_deletion([record(0, 0, 0)])
    assert ledger.contradictions() == ()
    edit(ledger, "UPDATE s3t_head SET at = '9999-01-01T00:00:00.000000+00:00'")
    assert any("a clock was wrong or the ledger's was changed" in line for line in ledger.contradictions())
    edit(ledger, "UPDATE s3t_head SET at = '2001-01-01T00:00:00.000000+00:00'")
    assert any("its history continues to" in line for line in ledger.contradictions())


def test_an_export_that_was_taken_out_or_put_in_is_told(ledger: Ledger) -> None:
    """Hidden from the ledger it would escape every purge; put in, a purge would erase files that are not the run's."""
    ledger.exports.note(0, ExportedFolder("out", ("stage",), ("adapter_model.safetensors",)))
    ledger.exports.note(1, ExportedFolder("gone", ("stage",), ("adapter_model.safetensors",)))
    ledger.exports.forget("gone")
    assert ledger.contradictions() == ()
    edit(ledger, "UPDATE s3t_exports SET shard = 1")
    assert any("names another shard" in line for line in ledger.contradictions())
    edit(ledger, "UPDATE s3t_exports SET folder = 'elsewhere'")
    told = ledger.contradictions()
    assert any("the export at out is in the history" in line for line in told)
    assert any("but not in the history" in line for line in told)


def test_an_export_is_told_by_the_log_whatever_the_history_says(ledger: Ledger) -> None:
    """The history is not signed, so whoever hides an export or makes one up writes that too."""
    export = ExportedFolder("out", ("stage",), ("adapter_model.safetensors",))
    ledger.exports.note(0, export)
    ledger.exports.note(0, export)  # again, in its own place
    assert [row.kind for row in ledger.log()] == ["run", "export", "export"] and ledger.contradictions() == ()
    with ledger._database.read() as connection:
        (row,) = connection.execute(text("SELECT stages, files, at FROM s3t_exports")).all()
    for change in ("stages = '[]'", "files = '[]'", "at = '2001-01-01T00:00:00.000000+00:00'"):
        edit(ledger, f"UPDATE s3t_exports SET {change}")
        assert any("another shard, stages, files or time than the log" in line for line in ledger.contradictions())
        edit(ledger, f"UPDATE s3t_exports SET stages = '{row.stages}', files = '{row.files}', at = '{row.at}'")
    edit(ledger, "DELETE FROM s3t_exports", "UPDATE s3t_events SET kind = 'note' WHERE kind = 'exported'")
    assert ledger.contradictions() == (
        "the export at out is in the log, and was taken out of the ledger: no purge would erase it",
    )
    edit(
        ledger,
        "UPDATE s3t_events SET kind = 'exported' WHERE kind = 'note'",
        f"INSERT INTO s3t_exports VALUES ('out', 0, '{row.stages}', '{row.files}', '{row.at}'), "
        f"('made up', 0, '[]', '[]', '{row.at}')",
        "UPDATE s3t_events SET detail = '{\"folder\"\\:\"made up\"}' WHERE kind = 'exported' "
        "AND sequence = (SELECT min(sequence) FROM s3t_events WHERE kind = 'exported')",
    )
    assert any("the log does not tell of it: it was made up" in line for line in ledger.contradictions())


def test_which_records_a_purged_deletion_took_is_under_a_seal(ledger: Ledger) -> None:
    """Two purged records that change places leave every count and every digest as it was."""
    epoch = ledger.take_lease("me")
    for number in (0, 3):
        purge(ledger, epoch, ledger.accept_deletion([record(0, 1, number)]).receipt.request_id)
    before = ledger.contradictions()
    low, high = (f"(SELECT {end}(sequence) FROM s3t_deletions)" for end in ("min", "max"))
    swap = f"UPDATE s3t_records SET deletion = CASE deletion WHEN {low} THEN {high} ELSE {low} END"
    edit(ledger, f"{swap} WHERE deletion IS NOT NULL")
    told = [line for line in ledger.contradictions() if line not in before]
    assert len(told) == 2 and all("said to have taken other records from slice 1 of shard 0" in line for line in told)
    edit(ledger, f"{swap} WHERE deletion IS NOT NULL")
    assert ledger.contradictions() == before
    edit(ledger, "UPDATE s3t_hits SET seal = NULL")
    told = [line for line in ledger.contradictions() if line not in before]
    assert len(told) == 2, "a run that this version began has no purge without its seal"


def test_a_purge_by_a_version_that_sealed_none_stays_readable(ledger: Ledger) -> None:
    """Its run's own seal is of the first format, which nobody without the keys can make."""
    epoch = ledger.take_lease("me")
    edit(ledger, "UPDATE s3t_run SET seal = NULL", "UPDATE s3t_records SET seal = NULL", "DELETE FROM s3t_log")
    purge(ledger, epoch, ledger.accept_deletion([record(0, 1, 0)]).receipt.request_id)
    ledger.exports.note(0, ExportedFolder("out", ("stage",), ("adapter_model.safetensors",)))
    edit(ledger, "UPDATE s3t_hits SET seal = NULL", "DELETE FROM s3t_log")
    assert ledger.seal()
    purge(ledger, epoch, ledger.accept_deletion([record(0, 1, 1)]).receipt.request_id)
    assert [line for line in ledger.contradictions() if "taken other records" in line or "export" in line] == []
    edit(ledger, "UPDATE s3t_hits SET seal = (SELECT max(id_hmac) FROM s3t_records) WHERE seal IS NOT NULL")
    assert len([line for line in ledger.contradictions() if "taken other records" in line]) == 1


def test_an_entry_under_another_kind_is_told(ledger: Ledger) -> None:
    """Its kind says which entries a reader of the ledger is given, and no signature covers it."""
    ledger.exports.note(0, ExportedFolder("out", ("stage",), ("adapter_model.safetensors",)))
    edit(ledger, "UPDATE s3t_log SET kind = 'note' WHERE kind = 'export'")
    assert any("is in the log as 'note', but it is 'export'" in line for line in ledger.contradictions())
