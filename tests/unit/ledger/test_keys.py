"""The run's secret: created once, kept private, and not derivable from its outputs."""

from __future__ import annotations

import hmac
import stat
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from s3t_ray.config.location import MASTER_FILE
from s3t_ray.errors import DataError, LedgerError
from s3t_ray.ledger.keys import PUBLIC_FILE, Keys
from s3t_ray.ledger.signers.signing_key import SIGNING_FILE


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "run.keys"
    made = Keys.load_or_create(folder)
    secret = (folder / MASTER_FILE).read_bytes()
    assert (mode(folder), mode(folder / MASTER_FILE), mode(folder / PUBLIC_FILE)) == (0o700, 0o600, 0o600)
    assert sorted(path.name for path in folder.iterdir()) == [MASTER_FILE, PUBLIC_FILE, SIGNING_FILE]
    again = Keys.load_or_create(folder)
    assert (folder / MASTER_FILE).read_bytes() == secret
    for keys in (again, Keys.load(folder)):
        assert keys.key_check == made.key_check
        assert keys.id_hmac("x") == made.id_hmac("x")
        assert keys.public_key == made.public_key


def test_one_process_wins_when_two_create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second had looked before the first wrote."""
    first = Keys.load_or_create(tmp_path)
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: False if path.name == MASTER_FILE else real(path))
    assert Keys.load_or_create(tmp_path).key_check == first.key_check
    assert sorted(path.name for path in tmp_path.iterdir()) == [MASTER_FILE, PUBLIC_FILE, SIGNING_FILE]


def test_lost_keys_say_what_is_lost(tmp_path: Path) -> None:
    with pytest.raises(LedgerError) as caught:
        Keys.load(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere" / MASTER_FILE) in caught.value.problem
    assert "ids can no longer be matched" in caught.value.fix
    assert "certificates still verify" in caught.value.fix
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("wrong", [0o640, 0o604, 0o620])
def test_a_secret_that_others_can_use_is_refused(tmp_path: Path, wrong: int) -> None:
    Keys.load_or_create(tmp_path)
    (tmp_path / MASTER_FILE).chmod(wrong)
    with pytest.raises(LedgerError, match=f"mode 0{wrong:o}.*\n.*chmod 600"):
        Keys.load(tmp_path)


def test_a_damaged_secret_is_refused(tmp_path: Path) -> None:
    Keys.load_or_create(tmp_path)
    (tmp_path / MASTER_FILE).write_bytes(b"short")
    with pytest.raises(LedgerError, match="5 bytes, not 32"):
        Keys.load_or_create(tmp_path)
    assert (tmp_path / MASTER_FILE).read_bytes() == b"short"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"keys cannot be made in .*file"):
        Keys.load_or_create(tmp_path / "file" / "keys")


def test_purposes_and_runs_are_apart() -> None:
    one, two = Keys(bytes(32)), Keys(b"\x01" * 32)
    made = [
        one.id_hmac("a"),
        one.subject_hmac("a"),
        one.content_hmac("a"),
        one.record_digest("a", ""),
        two.id_hmac("a"),
    ]
    made += [one.record_digest("", "a"), one.id_hmac("b")]
    assert len(set(made)) == len(made)
    assert {len(value) for value in made} == {32}
    assert one.key_check != two.key_check


def test_ids_and_contents_do_not_run_together() -> None:
    keys = Keys(bytes(32))
    assert keys.record_digest("ab", "c") != keys.record_digest("a", "bc")


def test_ids_are_bytes_as_given() -> None:
    """Composed and decomposed é are two ids."""
    keys = Keys(bytes(32))
    assert keys.id_hmac("caf\u00e9") != keys.id_hmac("cafe\u0301")


def test_hmacs_do_not_drift() -> None:
    """Another answer would make every deletion of a running run unknown."""
    keys = Keys(bytes(range(32)))
    # HKDF-SHA256 of RFC 5869, one block, by hand.
    extracted = hmac.digest(bytes(32), bytes(range(32)), sha256)
    key = hmac.digest(extracted, b"s3t/keys/1/id\x01", sha256)
    assert keys.id_hmac("r1") == hmac.digest(key, b"r1", sha256)


def test_half_a_surrogate_is_refused() -> None:
    with pytest.raises(DataError, match="position 1"):
        Keys(bytes(32)).id_hmac("a\ud800")


def test_signature_verifies_with_the_public_file(tmp_path: Path) -> None:
    keys = Keys.load_or_create(tmp_path)
    public = load_pem_public_key((tmp_path / PUBLIC_FILE).read_bytes())
    public.verify(keys.sign(b"said"), b"said")  # type: ignore[call-arg, union-attr]


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    keys = Keys.load_or_create(tmp_path)
    assert repr(keys) == f"Keys(key_check='{keys.key_check}')"
    assert keys.key_check not in (tmp_path / MASTER_FILE).read_bytes().hex()
