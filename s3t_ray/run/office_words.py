"""A deletion's state in the terms of two external systems, OpenDSR and DROP. Pure.

OpenDSR (github.com/opengdpr/OpenDSR) asks a processor for a status. California's Delete Request and Opt-out Platform
(DROP) asks a data broker for one of four outcomes. In: a deletion's state. Out: their terms.
"""

from __future__ import annotations

from enum import StrEnum

from s3t_ray.ledger.values import DeletionState


class OpenDsrStatus(StrEnum):
    """`request_status` of OpenDSR."""

    PENDING = "pending"  # accepted: not out of service everywhere yet
    IN_PROGRESS = "in_progress"  # pruned: the bytes are being erased
    COMPLETED = "completed"  # purged: nothing of the records is left; healing is not part of the request
    CANCELLED = "cancelled"  # never: an accepted deletion cannot be withdrawn


class DropOutcome(StrEnum):
    """The outcome that a broker reports for a consumer."""

    DELETED = "record deleted"
    OPTED_OUT = "record opted out of sale"  # never: a run sells no data
    EXEMPT = "record exempted"  # never: a run exempts no records
    NOT_FOUND = "record not found"  # never: such a request is refused with UnknownRecords


def opendsr_status(state: DeletionState) -> OpenDsrStatus:
    """The status of a deletion in this state."""
    match state:
        case DeletionState.ACCEPTED:
            return OpenDsrStatus.PENDING
        case DeletionState.PRUNED:
            return OpenDsrStatus.IN_PROGRESS
        case _:
            return OpenDsrStatus.COMPLETED


def drop_outcome(state: DeletionState) -> DropOutcome | None:
    """The outcome of a deletion in this state that names at least one record; None: too early to report."""
    return DropOutcome.DELETED if opendsr_status(state) is OpenDsrStatus.COMPLETED else None
