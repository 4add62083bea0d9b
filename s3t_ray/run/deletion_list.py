"""`s3t deletions`: a filtered list of a run's deletions, with the details of their requests.

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
    """Details of a request for a deletion. All fields are optional."""

    reference: ShortText | None = None
    """The requester's own reference for the request; kept."""
    requester: ShortText | None = None
    """Who asked; encrypted, and erased when the deletion is restored."""
    reason: LongText | None = None
    """Why; encrypted, and erased when the deletion is restored."""
    due: str | None = None
    """When the records must be purged: a date (2026-12-31: its end, UTC) or a time (ISO 8601, with its offset)."""

    @field_validator("due")
    @classmethod
    def _a_moment(cls, told: str | None) -> str | None:
        return None if told is None else moment(told)

    def details(self) -> RequestDetails:
        """The details as the ledger stores them."""
        return RequestDetails(self.reference, self.requester, self.reason, self.due)


class ListedRequest(Report):
    """One request for a deletion."""

    at: str
    reference: str | None = None
    requester: str | None = None
    reason: str | None = None
    due_at: str | None = None
    sealed: bool = True
    """False: the stored details were not sealed by the run's keys (see `s3t audit`), so they are not shown."""


class ListedDeletion(DeletionStatus):
    requests: tuple[ListedRequest, ...] = ()
    number: int
    """Number of the deletion in the run; `after` lists later ones."""
    opendsr_status: OpenDsrStatus
    """Its state in OpenDSR's terms."""
    drop_outcome: DropOutcome | None
    """The outcome for California's DROP; null: not known yet."""


class DeletionList(Report):
    deletions: tuple[ListedDeletion, ...]
    """In the order in which they were accepted."""
    more: bool
    """Whether there are more after the last one."""


class DeletionFilter(Report):
    """Selects deletions that match all given fields."""

    state: Literal["accepted", "pruned", "purged", "restored"] | None = None
    overdue: bool = False
    """Only deletions past their due date whose records are not purged."""
    reference: str | None = None
    requester: str | None = None
    due_before: str | None = None
    """Only deletions due before this date or time (as `OfficeRequest.due`) whose records are not purged."""
    after: int = Field(default=0, ge=0)
    limit: int = Field(default=MOST_LISTED, ge=1, le=MOST_LISTED)

    @field_validator("due_before")
    @classmethod
    def _a_moment(cls, told: str | None) -> str | None:
        return None if told is None else moment(told)

    def passes(self, listed: ListedDeletion) -> bool:
        """Whether the deletion matches."""
        open_at = listed.due_at if listed.purged_at is None else None
        return (
            listed.number > self.after
            and (listed.overdue or not self.overdue)
            and (self.due_before is None or (open_at is not None and open_at < self.due_before))
            and (self.reference is None or any(each.reference == self.reference for each in listed.requests))
            and (self.requester is None or any(each.requester == self.requester for each in listed.requests))
        )


def checked(kind: type[Told], **fields: object) -> Told:
    """A `kind` with these fields, without nulls. DataError: names the invalid field and the problem."""
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
    """Convert a date (the end of that day, UTC) or a time with its offset to the ledger's format. DataError."""
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
