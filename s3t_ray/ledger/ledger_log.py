"""The ledger's methods for proof: the run's keys, its random id, its seals, and its log of signed entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

from s3t_ray.ledger import certificate_chain, lease
from s3t_ray.ledger.certificate_chain import Circumstances
from s3t_ray.ledger.database import Database
from s3t_ray.ledger.keys import LedgerKeys
from s3t_ray.ledger.rows import key_changes, log_rows
from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.ledger.seals import row_seals
from s3t_ray.ledger.values import StoredEntry
from s3t_ray.proof.certificate import AnyCertificate, Certificate
from s3t_ray.proof.key_entry import CarriedKeyEntry, KeyEntry
from s3t_ray.proof.signed_entry import ChainHead, Signer


class LedgerLog:
    """A part of `Ledger`; use that class."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def bind(self, keys: Callable[[], LedgerKeys]) -> None:
        """Tell the ledger whom to ask for the run's keys, whenever it has something to seal, to sign or to check.

        What `keys` raises then undoes the transaction that needed them. It is asked each time, and may read the ledger.
        """
        self._database.ask_keys = keys

    def require_key(self, public_key: bytes) -> None:
        """VerificationFailed if the log was begun with another key, or is signed with another one since."""
        with self._database.read() as connection:
            log_rows.require_key(connection, public_key)

    def signing_key(self) -> str | None:
        """Public key (hex) that signs the next entry, according to the log; None: there is no log."""
        with self._database.read() as connection:
            return log_rows.signing_key(connection)

    def change_key(self, following: Signer, reason: Literal["rotation", "hand-over"], to: str | None) -> KeyEntry:
        """Add an entry that this key signs from now on, signed by the bound keys. LedgerError: there is no run yet."""
        with self._database.write() as tx:
            return key_changes.change(tx, following, reason, to)

    def carry_key(self, signer: Signer, changes: Sequence[str], lost: ChainHead) -> CarriedKeyEntry:
        """Add an entry that `signer` signs from now on to a log that was restored from before its key was changed.

        `changes`: the changes of key in the lost history, unmodified; `lost`: its newest entry. VerificationFailed:
        they do not lead from the current signing key to this one.
        """
        with self._database.write() as tx:
            return key_changes.carry(tx, signer, changes, lost)

    @cached_property
    def run_id(self) -> str:
        """The random id of the run, created with its ledger: 32 hex digits."""
        with self._database.read() as connection:
            return log_rows.read_identity(connection)

    def claim(self, place: str) -> str:
        """The storage of this ledger: `place`, unless another storage was first."""
        with self._database.write() as tx:
            return log_rows.claim(tx, place)

    def seal(self) -> bool:
        """Seal the rows of a run that an older version started. False: already sealed, or there is no run yet."""
        with self._database.write() as tx:
            return row_seals.seal_older_rows(tx)

    def require_never_sealed(self) -> None:
        """LedgerError if the seals of the ledger's rows were removed."""
        with self._database.read() as connection:
            row_seals.require_never_sealed(connection)

    def is_sealed(self) -> bool:
        """Whether the run's rows are sealed."""
        with self._database.read() as connection:
            return row_seals.is_sealed(connection)

    def is_sealed_since_begun(self) -> bool:
        """Whether, by the run's keys, a version began the run that seals more than records: purges and its config."""
        if not self.is_sealed() or (keys := self._database.keys) is None:
            return False
        with self._database.read() as connection:
            return (row_seals.seals_of(connection, keys) or 0) >= row_seals.SEALS_PURGES

    def certify(self, epoch: int, request_id: str, circumstances: Circumstances, *, final: bool) -> Certificate:
        """Add a purged deletion's certificate to the log; the final one also sets `restored`, in one transaction.

        Returns an existing certificate unchanged. LedgerError: the deletion is not purged yet, or an earlier one of the
        same records is not restored. VerificationFailed: an erased adapter is live again.
        """
        with self._database.write() as tx:
            lease.require(tx, epoch)
            made = certificate_chain.certify(tx, request_id, final, circumstances)
        if final:
            self._database.forget_overwritten()  # erases requester and reason
        return made

    def without_interim(self) -> tuple[str, ...]:
        """Purged deletions without an interim certificate in the log, in the order in which they were accepted."""
        with self._database.read() as connection:
            return certificate_chain.uncertified(connection)

    def same_adapter(self, request_id: str) -> tuple[str, ...]:
        """Live stages whose adapter equals one that this deletion took out of service."""
        with self._database.read() as connection:
            return certificate_chain.same_adapter(connection, request_id)

    def certificate(self, request_id: str) -> AnyCertificate | None:
        """The newest certificate of a deletion; None: not yet."""
        with self._database.read() as connection:
            return certificate_chain.read_certificate(connection, request_id)

    def certificates(self) -> tuple[AnyCertificate, ...]:
        """The final certificates, oldest first."""
        with self._database.read() as connection:
            return certificate_chain.read_certificates(connection)

    def log(self, kinds: tuple[EntryKind, ...] | None = None) -> tuple[StoredEntry, ...]:
        """The entries of the log, oldest first and unchecked. None: all, including unknown kinds."""
        with self._database.read() as connection:
            return log_rows.read_entries(connection, kinds)

    def log_of(self, request_id: str) -> tuple[StoredEntry, ...]:
        """The entries of one deletion, oldest first and unchecked. The cost is independent of the log's length."""
        with self._database.read() as connection:
            return log_rows.read_entries_of(connection, request_id)

    def log_after(self, sequence: int) -> tuple[StoredEntry, ...]:
        """The entries above this number, oldest first and unchecked."""
        with self._database.read() as connection:
            return log_rows.read_after(connection, sequence)

    def log_entry(self, sequence: int) -> StoredEntry | None:
        """The entry with this number; None: the log is shorter."""
        with self._database.read() as connection:
            return log_rows.read_numbered(connection, sequence)

    def log_head(self) -> ChainHead:
        """Number and hash of the newest entry."""
        with self._database.read() as connection:
            return log_rows.read_head(connection)

    def log_length(self) -> int:
        """Number of the newest entry, unchecked; 0: there is none."""
        with self._database.read() as connection:
            return log_rows.read_length(connection)

    def log_hash(self, sequence: int) -> str | None:
        """Hash of the entry with this number; None: the log is shorter."""
        with self._database.read() as connection:
            return log_rows.read_hash(connection, sequence)
