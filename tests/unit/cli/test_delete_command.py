"""`s3t delete` against a fake runtime: receipt first, then the wait; exit code 4 for unknown ids.

The runtime is replaced, so nothing here trains or deletes; tests/e2e takes the same commands down the
real path.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s3t_ray.errors import ClusterError, DataError, UnknownRecords
from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.ledger.values import Reach
from s3t_ray.run.deletion_list import DeletionFilter, DeletionList, ListedDeletion, ListedRequest
from s3t_ray.run.office_words import OpenDsrStatus
from s3t_ray.run.reports import DeletionReceipt, Duplicates, DuplicatesOf, Impact, Likeness, Status
from tests.fakes.command_line import IMPACT, RECEIPT, FakeRun, FakeRuntime, deletion, raises, s3t, status


class FakeDeletion:
    """Accepts anything and remembers in which order it was asked what."""

    def __init__(self, receipt: DeletionReceipt = RECEIPT, impact: Impact = IMPACT) -> None:
        self.receipt = receipt
        self.impact = impact
        self.calls: list[tuple[Any, ...]] = []
        self.reaches: list[Reach] = []
        self.published: list[FakeRun] = []

    def preview(self, run: FakeRun, ids: tuple[str, ...], subjects: tuple[str, ...], reach: Reach) -> Impact:
        self.calls.append(("preview", run.uri, tuple(ids), tuple(subjects)))
        self.reaches.append(reach)
        return self.impact

    def accept(
        self, run: FakeRun, ids: tuple[str, ...], subjects: tuple[str, ...], reach: Reach, details: RequestDetails
    ) -> DeletionReceipt:
        self.calls.append(("accept", run.uri, tuple(ids), tuple(subjects)))
        self.details = details
        self.reaches.append(reach)
        return self.receipt

    def settle(self, run: FakeRun, request_id: str, *, address: str | None, watch: Callable[[Status], None]) -> Status:
        self.calls.append(("settle", request_id, address))
        watch(status(deletions=(deletion("pruned", request_id),)))
        return status(settled=True, deletions=(deletion("restored", request_id, 41.0),))

    def into(self, runtime: FakeRuntime) -> FakeDeletion:
        runtime.answer("run.deletion", preview=self.preview, accept=self.accept)
        runtime.answer("runtime.delete", settle=self.settle)
        runtime.answer("run.log.published_log", publish=self.published.append)
        return self


def test_delete_prints_the_receipt_and_waits(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--id", " 18 ", "--subject", "ann", "--address", "auto")
    assert result.exit_code == 0
    assert fake.calls == [("accept", "runs/a", ("17", " 18 "), ("ann",)), ("settle", RECEIPT.request_id, "auto")]
    assert f"accepted {RECEIPT.request_id} at 2026-11-21T10:00:00Z" in result.stdout
    assert "2 records deleted; 2 stages taken out of service" in result.stdout
    assert "3 to 2" in result.stdout
    assert "restored after 41 s" in result.stdout
    assert "deletion dddddddddddd: pruned after 2 min 5 s" in result.stderr


def test_what_an_office_says_goes_with_the_deletion_and_a_wrong_date_deletes_nothing(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    office = ("--reference", "DSR-17", "--requester", "Ann", "--reason", "Article 17", "--due", "2026-12-31")
    assert s3t("delete", "runs/a", "--id", "17", "--no-wait", *office).exit_code == 0
    assert fake.details == RequestDetails("DSR-17", "Ann", "Article 17", "2026-12-31T23:59:59.999999+00:00")
    result = s3t("delete", "runs/a", "--id", "17", "--due", "31.12.2026")
    assert result.exit_code == DataError.exit_code and "write it as 2026-12-31" in result.stderr
    assert len(fake.calls) == 1


def test_deletions_are_listed_by_what_is_asked_for(runtime: FakeRuntime) -> None:
    asked: list[DeletionFilter] = []

    def found(_: FakeRun, wanted: DeletionFilter) -> DeletionList:
        asked.append(wanted)
        told = ListedRequest(at="2026-11-21T10:00:00Z", reference="DSR-17", requester="[red]Ann", due_at="2026-11-22")
        row = {**deletion("accepted", "d" * 16).model_dump(), "due_at": "2026-11-22", "overdue": True}
        requests = told, ListedRequest(at="then", sealed=False)
        listed = ListedDeletion(
            **row, opendsr_status=OpenDsrStatus.PENDING, drop_outcome=None, requests=requests, number=7
        )
        return DeletionList(deletions=(listed,), more=True)

    runtime.answer("run.deletion_list", list_deletions=found)
    result = s3t("deletions", "runs/a", "--state", "accepted", "--overdue", "--reference", "DSR-17", "--limit", "1")
    assert asked == [DeletionFilter(state="accepted", overdue=True, reference="DSR-17", limit=1)]
    for words in ("2026-11-22 overdue", "DSR-17", "[red]Ann", "not what was sealed"):
        assert words in result.stdout
    assert "--after 7" in result.stderr
    document = json.loads(s3t("deletions", "runs/a", "--json").stdout)
    assert document["deletions"][0]["requests"][0]["reference"] == "DSR-17"
    assert s3t("deletions", "runs/a", "--state", "gone").exit_code == DataError.exit_code


def test_status_shows_what_is_overdue_alone(runtime: FakeRuntime) -> None:
    late = deletion("accepted", "e" * 16).model_copy(update={"due_at": "2026-11-20T23", "overdue": True})
    runtime.answer("run.status", status=lambda _: status(deletions=(deletion("pruned", "d" * 16), late)))
    assert "dddddddddddd" in s3t("status", "runs/a").stdout
    shown = s3t("status", "runs/a", "--overdue").stdout
    assert "2026-11-20 overdue" in shown and "eeeeeeeeeeee" in shown and "dddddddddddd" not in shown


def test_delete_without_waiting_stops_after_the_receipt(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--no-wait", "--json")
    assert [call[0] for call in fake.calls] == ["accept"]
    assert json.loads(result.stdout) == RECEIPT.model_dump(mode="json")


def test_the_json_document_is_the_receipt_also_when_it_waits(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--json")
    assert [call[0] for call in fake.calls] == ["accept", "settle"]
    assert json.loads(result.stdout) == RECEIPT.model_dump(mode="json")


def test_the_receipt_is_printed_even_if_the_wait_fails(runtime: FakeRuntime) -> None:
    fake = FakeDeletion()
    runtime.answer("run.deletion", preview=fake.preview, accept=fake.accept)
    runtime.answer("runtime.delete", settle=raises(ClusterError("no GPU", "add one")))
    result = s3t("delete", "runs/a", "--id", "17")
    assert result.exit_code == ClusterError.exit_code
    assert RECEIPT.request_id in result.stdout
    assert result.stderr == "error: no GPU\nfix: add one\n"


def test_unknown_ids_are_listed_and_the_known_ones_go_on(runtime: FakeRuntime) -> None:
    receipt = RECEIPT.model_copy(update={"unknown_ids": ("x\x1b[2J", "[b]"), "unknown_subjects": ("bob",)})
    fake = FakeDeletion(receipt).into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--id", "x\x1b[2J", "--id", "[b]", "--subject", "bob")
    assert result.exit_code == 4
    assert [call[0] for call in fake.calls] == ["accept", "settle"]
    assert RECEIPT.request_id in result.stdout
    assert "unknown 2 ids: x\\x1b[2J, [b]" in result.stdout
    assert "error: the run does not hold 2 ids: x\\x1b[2J, [b]; 1 subject: bob\n" in result.stderr


def test_a_deletion_of_unknown_ids_alone_is_refused(runtime: FakeRuntime) -> None:
    refusal = UnknownRecords("the run holds none of the 1 records and subjects named", "check the ids")
    runtime.answer("run.deletion", accept=raises(refusal))
    runtime.answer("runtime.delete", settle=raises(AssertionError("nothing to wait for")))
    result = s3t("delete", "runs/a", "--id", "x", "--json")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith("error: the run holds none")


def test_a_repeated_request_is_said_and_settled_again(runtime: FakeRuntime) -> None:
    fake = FakeDeletion(RECEIPT.model_copy(update={"repeated": True})).into(runtime)
    result = s3t("delete", "runs/a", "--id", "17")
    assert "this request was accepted before" in result.stdout
    assert [call[0] for call in fake.calls] == ["accept", "settle"]


def test_a_dry_run_changes_nothing(runtime: FakeRuntime) -> None:
    fake = FakeDeletion(impact=IMPACT.model_copy(update={"unknown_ids": ("x",)})).into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--id", "x", "--dry-run")
    assert [call[0] for call in fake.calls] == ["preview"]
    assert result.exit_code == 4
    assert "would delete 2 records (1 of them held out); nothing was changed" in result.stdout
    assert "1,640" in result.stdout
    assert "nothing was changed" in s3t("delete", "runs/a", "--id", "17", "--dry-run").stdout


def test_ids_come_from_standard_input(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    s3t("delete", "runs/a", "--ids-file", "-", "--no-wait", input="\ufeffa b\r\n\r\nc\na b\n")
    assert fake.calls == [("accept", "runs/a", ("a b", "c"), ())]


def test_people_come_from_a_file_verbatim(runtime: FakeRuntime, tmp_path: Path) -> None:
    fake = FakeDeletion().into(runtime)
    (tmp_path / "people").write_text("ann@example.org \n\nBob\nann@example.org \n")
    s3t("delete", "runs/a", "--subject", "eve", "--subjects-file", str(tmp_path / "people"), "--no-wait")
    assert fake.calls == [("accept", "runs/a", (), ("eve", "ann@example.org ", "Bob"))]


def test_a_missing_ids_file_touches_nothing(runtime: FakeRuntime, tmp_path: Path) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a", "--id", "1", "--ids-file", str(tmp_path / "gone"))
    assert result.exit_code == DataError.exit_code
    assert fake.calls == []


def test_a_deletion_of_nothing_is_a_usage_error(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a")
    assert result.exit_code == 2
    assert "--ids-file" in result.stderr
    assert fake.calls == []


LIKENESS = Likeness(
    duplicates=Duplicates(
        records=3, subjects=(DuplicatesOf(subject="9f3a00112233", records=2), DuplicatesOf(subject=None, records=1))
    ),
    near_duplicates=Duplicates(records=1, subjects=(DuplicatesOf(subject="00ff00ff00ff", records=1),)),
    threshold=0.8,
    reach="named",
    taken_along=0,
    forgotten=0,
)


def test_what_is_alike_and_stays_is_listed(runtime: FakeRuntime) -> None:
    fake = FakeDeletion(
        RECEIPT.model_copy(update={"likeness": LIKENESS}), IMPACT.model_copy(update={"likeness": LIKENESS})
    ).into(runtime)
    for words in (["--dry-run"], ["--no-wait"]):
        shown = " ".join(s3t("delete", "runs/a", "--id", "17", *words).stdout.split())
        assert set(fake.reaches) == {Reach.NAMED}
        assert "kept: 3 records with the same content; subjects: 9f3a00112233 (2), nobody (1); --with-dup" in shown
        assert "kept: 1 record with nearly the same content (similarity 0.8 or more); subjects: 00ff00ff00ff" in shown
    assert json.loads(s3t("delete", "runs/a", "--id", "17", "--dry-run", "--json").stdout)["likeness"]["forgotten"] == 0


def test_what_is_alike_goes_along_when_asked(runtime: FakeRuntime) -> None:
    none = Duplicates(records=0, subjects=())
    likeness = Likeness(
        duplicates=none, near_duplicates=None, threshold=0.8, reach="duplicates", taken_along=2, forgotten=1
    )
    fake = FakeDeletion(RECEIPT.model_copy(update={"likeness": likeness})).into(runtime)
    shown = s3t("delete", "runs/a", "--id", "17", "--with-duplicates", "--no-wait").stdout
    assert fake.reaches == [Reach.DUPLICATES]
    assert "2 records of these because of the same content" in shown
    assert "1 record purged earlier" in shown and "without sketches" in shown and "kept" not in shown
    s3t("delete", "runs/a", "--id", "17", "--with-near-duplicates", "--no-wait")
    assert fake.reaches == [Reach.DUPLICATES, Reach.NEAR_DUPLICATES]
