"""All errors that s3t_ray raises on purpose, in one class hierarchy.

Every message names the problem, the value and the fix. The command line maps each class to its exit
code. Any other exception is a bug in s3t_ray and shows a traceback.
"""


class S3TError(Exception):
    """Base class. `problem` states what is wrong, with the value; `fix` states what to do."""

    exit_code = 1

    def __init__(self, problem: str, fix: str) -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}\n  fix: {fix}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # Exceptions with two arguments cannot be unpickled by default, and Ray pickles them.
        return type(self), (self.problem, self.fix)


class ConfigError(S3TError):
    """The configuration is invalid; nothing was started."""

    exit_code = 2


class DataError(S3TError):
    """The input data is invalid (malformed rows, duplicate ids, a missing file)."""

    exit_code = 3


class UnknownRecords(S3TError):
    """A deletion named records or subjects that are not in the run; the others were deleted."""

    exit_code = 4


class LedgerError(S3TError):
    """The ledger refused an operation: another writer, a newer schema, a lost key, an invalid state transition."""

    exit_code = 5


class StoreError(S3TError):
    """The storage failed or is damaged, or a path points outside the storage root."""

    exit_code = 6


class StageDamaged(StoreError):
    """The bytes of a published stage are missing, or differ from those that were published."""


class TrainError(S3TError):
    """A stage could not be trained."""

    exit_code = 7


class VerificationFailed(S3TError):
    """A verification failed: an id, a digest, a signature or a replay differs."""

    exit_code = 8


class ClusterError(S3TError):
    """Ray cannot be reached, or cannot provide the resources that the run needs."""

    exit_code = 9


class Overloaded(ClusterError):
    """There are too many requests at once. Retry the same request later."""


class NotProved(S3TError):
    """A replay on other hardware or library versions gave different bytes, which proves nothing."""

    exit_code = 10


def problem_of(error: Exception) -> str:
    """The problem of any error, in one line."""
    return error.problem if isinstance(error, S3TError) else repr(error)
