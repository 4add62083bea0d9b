"""Maps our errors to HTTP status codes and to messages for callers.

In: an S3TError. Out: status, code and message. Internal details are only in the operator's log.
"""

from __future__ import annotations

from s3t_ray.errors import ConfigError, DataError, Overloaded, S3TError, UnknownRecords
from s3t_ray.ledger.values import NoSuchDeletion


class WrongRun(ConfigError):
    """A request names another run than the served one."""


class NoSuchModel(ConfigError):
    """A request names another model than the served one."""


def check_run(asked: str | None, served: str) -> None:
    """WrongRun if `asked` names another run."""
    if asked is not None and asked != served:
        raise WrongRun(
            f"this service serves run {served!r}, not {asked!r}", "send the request to the service of that run"
        )


def status_of(error: S3TError) -> int:
    """The status code."""
    match error:
        case WrongRun():
            return 409
        case UnknownRecords() | NoSuchDeletion() | NoSuchModel():
            return 404
        case ConfigError() | DataError():
            return 400
        case Overloaded():
            return 429
        case _:
            return 503


def code_of(error: S3TError) -> str:
    """The error code for programs."""
    match error:
        case WrongRun():
            return "wrong_run"
        case NoSuchModel():
            return "model_not_found"
        case Overloaded():
            return "overloaded"
    return {404: "not_found", 400: "invalid_request"}.get(status_of(error), "unavailable")


def message_of(error: S3TError) -> str:
    """The message for people."""
    return f"{error.problem}; {error.fix}" if status_of(error) < 500 else "the service cannot answer now"
