"""Every error that s3t_ray raises on purpose, in one class hierarchy.

The message is the documentation: it names the thing, its value and the fix. The command line maps
each class to its exit code. Any other exception is a bug of ours and shows a traceback.
"""


class S3TError(Exception):
    """Base class. `problem` says what is wrong, with the value; `fix` says what to do."""

    exit_code = 1

    def __init__(self, problem: str, fix: str) -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}\n  fix: {fix}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # Two-argument exceptions do not survive pickling by default, and Ray pickles them.
        return type(self), (self.problem, self.fix)


class ConfigError(S3TError):
    """The configuration is refused; nothing was started."""

    exit_code = 2


class DataError(S3TError):
    """Input records are refused (malformed rows, duplicate ids, a missing file)."""

    exit_code = 3


class UnknownRecords(S3TError):
    """A deletion named records or subjects that the run does not hold; the others were deleted."""

    exit_code = 4


class LedgerError(S3TError):
    """The ledger refuses: another writer, a newer schema, a lost key, an invalid change of state."""

    exit_code = 5


class StoreError(S3TError):
    """Storage failed, is damaged, or a path tries to leave the storage root."""

    exit_code = 6


class StageDamaged(StoreError):
    """The bytes of a published stage are missing, or are not those that were published."""


class TrainError(S3TError):
    """A stage could not be trained."""

    exit_code = 7


class VerificationFailed(S3TError):
    """A proof did not hold: an id, a digest or a replay differs."""

    exit_code = 8


class ClusterError(S3TError):
    """Ray cannot provide what the run needs, or cannot be reached."""

    exit_code = 9


class Overloaded(ClusterError):
    """Too many requests at once: the same request may be sent again later."""


class NotProved(S3TError):
    """A replay gave different bytes on different hardware or library versions: nothing is proved."""

    exit_code = 10


def problem_of(error: Exception) -> str:
    """What is wrong, in one line, for any error."""
    return error.problem if isinstance(error, S3TError) else repr(error)
