"""`s3t deletions`: a filtered list of a run's deletions, with the details that offices gave.

In: an open run and a filter. Out: reports. References, requesters and reasons can be read only with the run's keys; see
`ledger/rows/request_rows.py`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from s3t_ray.errors import DataError
from s3t_ray.ledger.rows.request_rows import RequestDetails, RequestRow
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.run.office_words import DropOutcome, OpenDsrStatus, drop_outcome, opendsr_status
from s3t_ray.run.reports import DeletionStatus, Report
from s3t_ray.run.run import Run
from s3t_ray.run.status import deletion_status

MOST_LISTED = 1000

Told = TypeVar("Told", bound=Report)
ShortText = Annotated[str, Field(min_length=1, max_length=200)]
LongText = Annotated[str, Field(min_length=1, max_length=2000)]


class OfficeRequest(Report):
    """What an office says of a deletion that it asks for. All of it may be left out."""

    reference: ShortText | None = None
    """The office's own name for the request; kept."""
    requester: ShortText | None = None
    """Who asked; encrypted, and erased when the deletion is restored."""
    reason: LongText | None = None
    """Why; encrypted, and erased when the deletion is restored."""
    due: str | None = None
    """By when the records must be purged: a date (2026-12-31: its end, UTC) or a moment (ISO 8601, with its offset)."""

    @field_validator("due")
    @classmethod
    def _a_moment(cls, told: str | None) -> str | None:
        return None if told is None else moment(told)

    def details(self) -> RequestDetails:
        """As the ledger keeps it."""
        return RequestDetails(self.reference, self.requester, self.reason, self.due)


class ListedRequest(Report):
    """One time that a deletion was asked for."""

    at: str
    reference: str | None = None
    requester: str | None = None
    reason: str | None = None
    due_at: str | None = None
    sealed: bool = True
    """False: what is stored was not sealed by the run's keys (see `s3t audit`), so it is not shown."""


class ListedDeletion(DeletionStatus):
    requests: tuple[ListedRequest, ...] = ()
    number: int
    """Its place in the run's count: list those after it with `after`."""
    opendsr_status: OpenDsrStatus
    """Its state in the words of OpenDSR."""
    drop_outcome: DropOutcome | None
    """What California's DROP wants to hear; null: too early to say."""


class DeletionList(Report):
    deletions: tuple[ListedDeletion, ...]
    """In the order they were accepted."""
    more: bool
    """There are more after the last one."""


class DeletionFilter(Report):
    """Which deletions are wanted: those that pass all that is set."""

    state: Literal["accepted", "pruned", "purged", "restored"] | None = None
    overdue: bool = False
    """Only those whose due date has passed while their records are not purged."""
    reference: str | None = None
    requester: str | None = None
    due_before: str | None = None
    """Date or moment, as `OfficeRequest.due`; of deletions whose records are not purged."""
    after: int = Field(default=0, ge=0)
    limit: int = Field(default=MOST_LISTED, ge=1, le=MOST_LISTED)

    @field_validator("due_before")
    @classmethod
    def _a_moment(cls, told: str | None) -> str | None:
        return None if told is None else moment(told)

    def passes(self, listed: ListedDeletion) -> bool:
        """Whether it is one of those wanted."""
        open_at = listed.due_at if listed.purged_at is None else None
        return (
            listed.number > self.after
            and (listed.overdue or not self.overdue)
            and (self.due_before is None or (open_at is not None and open_at < self.due_before))
            and (self.reference is None or any(each.reference == self.reference for each in listed.requests))
            and (self.requester is None or any(each.requester == self.requester for each in listed.requests))
        )


def checked(kind: type[Told], **fields: object) -> Told:
    """`kind` of these fields, nulls left out. Raises DataError, which names the field and what is wrong."""
    try:
        return kind.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{field}: {first['msg']}", "correct it; nothing was changed") from error


def list_deletions(run: Run, wanted: DeletionFilter) -> DeletionList:
    """The first `limit` deletions that pass."""
    rows = run.ledger.deletions(None if wanted.state is None else DeletionState(wanted.state))
    requests = run.ledger.requests.of()
    listed = (_listed(row, requests.get(row.number, ())) for row in rows if row.number > wanted.after)
    found = [each for each in listed if wanted.passes(each)]
    return DeletionList(deletions=tuple(found[: wanted.limit]), more=len(found) > wanted.limit)


def listed_deletion(run: Run, request_id: str) -> ListedDeletion:
    """One deletion. NoSuchDeletion (a LedgerError): there is none of this id."""
    row = run.ledger.deletion(request_id)
    return _listed(row, run.ledger.requests.of([row.number]).get(row.number, ()))


def moment(told: str) -> str:
    """A date (the end of that day, UTC) or a moment with its offset, as the ledger writes times. Raises DataError."""
    try:
        if len(told) == len("2026-12-31"):
            found = datetime.combine(date.fromisoformat(told), time.max, UTC)
        else:
            found = datetime.fromisoformat(told)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise DataError(
            f"{told!r} is neither a date nor a time with a UTC offset",
            "write it as 2026-12-31 or 2026-12-31T17:00:00+01:00",
        )
    return found.astimezone(UTC).isoformat(timespec="microseconds")


def _listed(row: DeletionRow, requests: tuple[RequestRow, ...]) -> ListedDeletion:
    due = min((request.due_at for request in requests if request.due_at is not None), default=None)
    told = tuple(_told(request) for request in requests)
    return ListedDeletion(
        **deletion_status(row, due).model_dump(),
        requests=told,
        number=row.number,
        opendsr_status=opendsr_status(row.state),
        drop_outcome=drop_outcome(row.state),
    )


def _told(request: RequestRow) -> ListedRequest:
    details = request.details
    if details is None:
        return ListedRequest(at=request.at, due_at=request.due_at, sealed=False)
    return ListedRequest(
        at=request.at,
        reference=details.reference,
        requester=details.requester,
        reason=details.reason,
        due_at=request.due_at,
    )
