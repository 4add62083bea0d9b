"""A deletion's state in the words of two systems that offices report to. Pure.

OpenDSR (github.com/opengdpr/OpenDSR) asks a processor for a status. California's Delete Request and Opt-out Platform
(DROP) asks a data broker for one of four outcomes. In: how far a deletion is, and what it found. Out: their words.
"""

from __future__ import annotations

from enum import StrEnum

from s3t_ray.ledger.values import DeletionState


class OpenDsrStatus(StrEnum):
    """`request_status` of OpenDSR."""

    PENDING = "pending"  # accepted: not out of service everywhere yet
    IN_PROGRESS = "in_progress"  # pruned: the bytes are being erased
    COMPLETED = "completed"  # purged: nothing of the records is left; healing the model is no part of the request
    CANCELLED = "cancelled"  # never here: an accepted deletion cannot be taken back


class DropOutcome(StrEnum):
    """What a broker reports of a consumer."""

    DELETED = "record deleted"
    OPTED_OUT = "record opted out of sale"  # never here: a run sells nothing
    EXEMPT = "record exempted"  # never here: a run holds nothing back
    NOT_FOUND = "record not found"  # the request was refused with UnknownRecords: there is no deletion


def opendsr_status(state: DeletionState) -> OpenDsrStatus:
    """Of a deletion in this state."""
    match state:
        case DeletionState.ACCEPTED:
            return OpenDsrStatus.PENDING
        case DeletionState.PRUNED:
            return OpenDsrStatus.IN_PROGRESS
        case _:
            return OpenDsrStatus.COMPLETED


def drop_outcome(state: DeletionState) -> DropOutcome | None:
    """Of a deletion in this state, which named a record at least; None: too early to report."""
    return DropOutcome.DELETED if opendsr_status(state) is OpenDsrStatus.COMPLETED else None
