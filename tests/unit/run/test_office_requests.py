"""Details of requests are stored with a deletion, and readable only with the keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, text

from s3t_ray.errors import DataError
from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.deletion_list import DeletionFilter, OfficeRequest, checked, list_deletions, listed_deletion, moment
from s3t_ray.run.office_words import drop_outcome, opendsr_status
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from tests.fakes import Cluster, fake_base, small_config, write_records

ANN = RequestDetails("DSR-17", "Ann Example", "Article 17", "2020-01-02T23:59:59.999999+00:00")
LATER = RequestDetails("DSR-18", due_at="2999-01-01T00:00:00.000000+00:00")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", f"p{number % 5}") for number in range(20)])
    made = Cluster(small_config(tmp_path))
    made.settle()
    return made


def on_disk(run: Run) -> bytes:
    file = Path(str(run.location.ledger_url).removeprefix("sqlite:///"))
    return b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))


def edit(run: Run, statement: str) -> None:
    engine = create_engine(str(run.location.ledger_url))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_what_an_office_says_is_kept_and_who_asked_goes_when_it_is_restored(cluster: Cluster) -> None:
    run = cluster.run
    receipt = deletion.accept(run, ["r3"], [], details=ANN)
    found = listed_deletion(run, receipt.request_id)
    (told,) = found.requests
    assert (told.reference, told.requester, told.reason, told.due_at) == (
        ANN.reference,
        ANN.requester,
        ANN.reason,
        ANN.due_at,
    )
    assert found.overdue and status(run).deletions[0].overdue
    for words in ("Ann Example", "Article 17", "DSR-17"):
        assert words.encode() not in on_disk(run), "nobody without the keys reads it"
    before = on_disk(run)
    cluster.settle()
    after = listed_deletion(run, receipt.request_id)
    (told,) = after.requests
    assert (told.reference, told.requester, told.reason, after.overdue) == ("DSR-17", None, None, False)
    assert run.ledger.contradictions() == ()
    stored = [bytes(row) for row in _details(run)]
    assert all(row not in before for row in stored), "encrypted anew"


def _details(run: Run) -> list[bytes]:
    engine = create_engine(str(run.location.ledger_url))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT details FROM s3t_requests")).scalars().all()
    engine.dispose()
    return list(rows)


def test_the_erased_row_is_gone_from_the_file(cluster: Cluster) -> None:
    deletion.accept(cluster.run, ["r3"], [], details=ANN)
    (old,) = _details(cluster.run)
    assert old in on_disk(cluster.run)
    cluster.settle()
    cluster.run.close()
    assert old not in on_disk(cluster.run)


def test_a_repeat_adds_what_is_new_and_changes_nothing_else(cluster: Cluster) -> None:
    run = cluster.run
    first = deletion.accept(run, ["r3"], [], details=ANN)
    for details in (ANN, LATER, LATER, RequestDetails()):
        again = deletion.accept(run, ["r3"], [], details=details)
        assert again.repeated and again.proof == first.proof
    assert [told.reference for told in listed_deletion(run, first.request_id).requests] == ["DSR-17", "DSR-18"]
    assert listed_deletion(run, first.request_id).due_at == ANN.due_at, "the earliest counts"
    cluster.settle()
    deletion.accept(run, ["r3"], [], details=RequestDetails("DSR-19", requester="Ben"))
    assert listed_deletion(run, first.request_id).requests[-1].requester is None, "it is restored already"


def test_filters(cluster: Cluster) -> None:
    run = cluster.run
    one = deletion.accept(run, ["r3"], [], details=ANN).request_id
    two = deletion.accept(run, ["r4"], [], details=LATER).request_id
    three = deletion.accept(run, ["r5"], []).request_id

    def found(**wanted: object) -> list[str]:
        return [each.request_id for each in list_deletions(run, checked(DeletionFilter, **wanted)).deletions]

    assert found() == [one, two, three]
    assert found(overdue=True) == found(reference="DSR-17") == found(requester="Ann Example") == [one]
    assert found(due_before="2030-01-01") == [one] and found(due_before="3000-01-01") == [one, two]
    assert found(state="accepted") == [one, two, three] and found(state="restored") == []
    page = list_deletions(run, DeletionFilter(limit=2))
    assert page.more and len(page.deletions) == 2
    rest = list_deletions(run, DeletionFilter(after=page.deletions[-1].number))
    assert ([each.request_id for each in rest.deletions], rest.more) == ([three], False)
    cluster.settle()
    assert found(overdue=True) == [] and len(found(state="restored")) == 3


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE s3t_requests SET due_at = '2999-01-01T00:00:00.000000+00:00' WHERE due_at < '2021'",
        "UPDATE s3t_requests SET due_at = NULL WHERE due_at < '2021'",
        "UPDATE s3t_requests SET deletion = (SELECT max(sequence) FROM s3t_deletions)",
        "UPDATE s3t_requests SET details = (SELECT details FROM s3t_requests WHERE due_at > '2021')",
        "UPDATE s3t_requests SET at = '2020'",
        "DELETE FROM s3t_requests WHERE due_at < '2021'",
    ],
)
def test_who_has_no_key_changes_nothing_unseen(cluster: Cluster, change: str) -> None:
    run = cluster.run
    deletion.accept(run, ["r3"], [], details=ANN)
    deletion.accept(run, ["r4"], [], details=LATER)
    assert run.ledger.contradictions() == ()
    edit(run, change)
    assert run.ledger.contradictions()
    shown = [told for each in list_deletions(run, DeletionFilter()).deletions for told in each.requests]
    assert not [told for told in shown if told.requester and told.due_at != ANN.due_at], "nothing false is shown"
    cluster.settle()  # and no deletion is held up by it


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ("2026-12-31", "2026-12-31T23:59:59.999999+00:00"),
        ("2026-12-31T17:00:00+01:00", "2026-12-31T16:00:00.000000+00:00"),
        ("2026-12-31T17:00:00Z", "2026-12-31T17:00:00.000000+00:00"),
    ],
)
def test_a_due_date_is_a_day_or_a_moment(told: str, read: str) -> None:
    assert moment(told) == read
    assert OfficeRequest(due=told).details().due_at == read


@pytest.mark.parametrize("told", ["", "soon", "2026-13-01", "2026-12-31T17:00:00", "31.12.2026"])
def test_what_is_no_date_is_refused(told: str) -> None:
    with pytest.raises(DataError, match="neither a date nor a time"):
        checked(OfficeRequest, due=told)


@pytest.mark.parametrize("field", ["reference", "requester", "reason"])
def test_empty_and_endless_texts_are_refused(field: str) -> None:
    for said in ("", "x" * 2001):
        with pytest.raises(DataError, match=field):
            checked(OfficeRequest, **{field: said})


def test_a_state_in_the_words_of_opendsr_and_of_drop(cluster: Cluster) -> None:
    request_id = deletion.accept(cluster.run, ["r3"], []).request_id
    told = []
    for _ in range(2):
        found = listed_deletion(cluster.run, request_id)
        told.append((found.opendsr_status, found.drop_outcome))
        cluster.settle()
    assert told == [("pending", None), ("completed", "record deleted")]


@pytest.mark.parametrize(
    ("state", "status", "outcome"),
    [
        (DeletionState.ACCEPTED, "pending", None),
        (DeletionState.PRUNED, "in_progress", None),
        (DeletionState.PURGED, "completed", "record deleted"),
        (DeletionState.RESTORED, "completed", "record deleted"),
    ],
)
def test_every_state_has_a_word(state: DeletionState, status: str, outcome: str | None) -> None:
    assert (opendsr_status(state), drop_outcome(state)) == (status, outcome)


def test_half_a_surrogate_pair_is_refused_before_anything_is_accepted(cluster: Cluster) -> None:
    for ids, subjects in ((["r1", "\ud800"], []), ([], ["ann\udfff"])):
        with pytest.raises(DataError, match="contains half a surrogate pair"):
            deletion.accept(cluster.run, ids, subjects)
    assert cluster.run.ledger.deletions() == ()
    for field in ("reference", "requester", "reason"):
        with pytest.raises(ValidationError, match="unicode string"):
            OfficeRequest.model_validate({field: "case \ud800"})
