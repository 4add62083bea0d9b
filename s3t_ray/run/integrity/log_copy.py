"""A second copy of a run's log, outside the run, written as the log grows. It has the entries that a backup lacks.

In: a folder, the ledger's log. Out: in `<folder>/<run id>/`, a file with each entry of the log, and for each receipt
the keyed hashes of the names in it, sealed by the run's keys. It contains no names and no content. After a backup is
restored, `restore.py` repeats deletions from here. Entries appear atomically and never change.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import DuplicateSearch, Reach
from s3t_ray.proof.signed_entry import hash_of
from s3t_ray.store.seal import Sealed, is_sealed_with, seal

_NAMES = "names.json"
_CHECKPOINT = "checkpoint"


class NamedHashes(Sealed):
    """The names in a deletion, as keyed hashes in hex: enough to repeat the deletion with the run's keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    request_id: str
    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    reach: str
    threshold: float


@dataclass(frozen=True)
class LogCopy:
    """The copy of one run's log."""

    folder: Path

    @classmethod
    def of(cls, folder: Path | None, run_id: str) -> LogCopy | None:
        """The copy in `folder`; None if the config does not ask for one."""
        return None if folder is None else cls(folder / run_id)

    def add_names(
        self, request_id: str, ids: Sequence[bytes], subjects: Sequence[bytes], search: DuplicateSearch, keys: Keys
    ) -> None:
        """Store the names of a deletion, before its receipt, which would be useless alone. OSError."""
        named = NamedHashes(
            request_id=request_id,
            ids=tuple(name.hex() for name in ids),
            subjects=tuple(name.hex() for name in subjects),
            reach=search.reach.value,
            threshold=search.threshold,
        )
        self.add_sealed(seal(named, _key(keys, request_id)))

    def add_sealed(self, names: NamedHashes) -> None:
        """The same for names from another copy. OSError."""
        self._write(f"{names.request_id}.{_NAMES}", names.model_dump_json())

    def keep_checkpoint(self, text: str) -> None:
        """Store a signed checkpoint of this history, which the log no longer continues. OSError."""
        self._write(_CHECKPOINT, text)

    def catch_up(self, ledger: Ledger) -> None:
        """Copy new entries, oldest first. OSError."""
        missing = []
        sequence = ledger.log_length()
        while sequence > 0 and not self._entry(sequence).exists():
            if (stored := ledger.log_entry(sequence)) is not None:
                missing.append((stored.sequence, stored.text))
            sequence -= 1
        for number, text in reversed(missing):
            self._write(self._entry(number).name, text)

    def lacks(self, ledger: Ledger) -> str | None:
        """A description of what the copy has and the ledger's log lacks; None: nothing."""
        length = ledger.log_length()
        later = self._entry(length + 1)
        if later.exists():
            return f"the copy of its log in {self.folder} goes on after entry {length}, where the ledger ends"
        newest = self._entry(length)
        if length and newest.exists() and hash_of(newest.read_text()) != ledger.log_hash(length):
            return f"the copy of its log in {self.folder} has another entry {length} than the ledger"
        return None

    def texts(self) -> tuple[str, ...]:
        """The entries, oldest first, up to the first that is missing."""
        found: list[str] = []
        while (path := self._entry(len(found) + 1)).exists():
            found.append(path.read_text())
        return tuple(found)

    def named(self, request_id: str, keys: Keys) -> NamedHashes | None:
        """The names in a deletion; None: not stored here. VerificationFailed: not sealed by the run's keys."""
        path = self.folder / f"{request_id}.{_NAMES}"
        if not path.exists():
            return None
        try:
            found = NamedHashes.model_validate_json(path.read_bytes())
        except ValidationError:
            found = None
        if found is None or found.request_id != request_id or not is_sealed_with(found, _key(keys, request_id)):
            raise VerificationFailed(
                f"{path} was not sealed by the run's keys", "restore it from another copy of the log"
            )
        return found

    def _entry(self, sequence: int) -> Path:
        return self.folder / f"{sequence:09d}.json"

    def _write(self, name: str, text: str) -> None:
        """Write atomically and durably."""
        if (self.folder / name).exists():
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self.folder)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, self.folder / name)
        opened = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def search_of(named: NamedHashes) -> DuplicateSearch:
    """The search for duplicates that such a deletion includes."""
    return DuplicateSearch(Reach(named.reach), named.threshold)


def _key(keys: Keys, request_id: str) -> str:
    return keys.seal_key("named", request_id)
