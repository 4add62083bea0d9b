"""A run whose signing key is on a PKCS#11 token: SoftHSM's, with keys made there, that never leave it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, Mechanism

from s3t_ray.audit.audit import audit
from s3t_ray.errors import ConfigError, LedgerError
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.signers.pkcs11_signer import PIN_VARIABLE, Pkcs11Signer
from s3t_ray.ledger.signers.pkcs11_uri import Pkcs11Uri
from s3t_ray.proof.run_log import verify_chain
from s3t_ray.run import deletion
from s3t_ray.run.log.key_change import change_key
from s3t_ray.run.log.published_log import publish
from s3t_ray.run.run import Run
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.command_line import s3t

PIN = "493817"
ED25519 = b"\x13\x0cedwards25519"  # DER: the curve by its name, as PKCS#11 3.0 has it
MODULES = ("/usr/lib/softhsm", "/usr/lib/*/softhsm", "/usr/lib*/pkcs11", "/usr/local/lib/softhsm", "/opt/*/lib/softhsm")


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The library of a SoftHSM whose one token, `run`, holds two Ed25519 key pairs and one of another curve."""
    program = shutil.which("softhsm2-util")
    found = [path for place in MODULES for path in Path("/").glob(f"{place[1:]}/libsofthsm2.so")]
    assert program and found, (
        "keys on tokens are tested with SoftHSM: install it (Debian, Ubuntu: apt-get install softhsm2)"
    )
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "conf"))
        patch.setenv(PIN_VARIABLE, PIN)
        command = [program, "--init-token", "--free", "--label", "run", "--pin", PIN, "--so-pin", PIN]
        subprocess.run(command, check=True, capture_output=True)
        with pkcs11.lib(str(found[0])).get_token(token_label="run").open(user_pin=PIN, rw=True) as session:
            for label in ("first", "second"):
                curve = session.create_domain_parameters(KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: ED25519}, local=True)
                curve.generate_keypair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label=label)
        yield str(found[0])
        pkcs11.unload(str(found[0]))


def uri_of(module: str, label: str = "first", more: str = "") -> str:
    return f"pkcs11:token=run;object={label}?module-path={module}{more}"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(12)])
    cluster = Cluster(small_config(tmp_path))
    cluster.settle()
    cluster.run.close()
    yield tmp_path / "run"


def test_a_key_on_a_token_signs_from_the_change_on(run: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = run.parent / "run.keys" / "signing.key"
    with Run.open(run) as opened:
        pems = [opened.keys.public_key_pem]
    for label in ("first", "second"):
        changed = s3t("rotate-key", str(run), "--token", uri_of(module, label))
        assert changed.exit_code == 0, changed.stderr
        assert PIN not in changed.output and "BEGIN PRIVATE" not in held.read_text()
        assert held.read_text().splitlines()[0] == uri_of(module, label)
        assert stat.S_IMODE(held.stat().st_mode) == 0o600
        with Run.open(run) as opened:
            pems.append(opened.keys.public_key_pem)
            deletion.accept(opened, [{"first": "r3", "second": "r7"}[label]], [])
            publish(opened)
    again = s3t("rotate-key", str(run), "--token", uri_of(module, "second"))
    assert again.exit_code == LedgerError.exit_code and "signs for this run already" in again.stderr
    assert s3t("rotate-key", str(run)).exit_code == 0, "back to a key in a file"
    assert len(held.read_bytes()) == 32
    monkeypatch.delenv(PIN_VARIABLE)
    with Run.open(run) as opened:
        deletion.accept(opened, ["r9"], [])
        texts = [row.text for row in opened.ledger.log()]
        assert len(set(pems)) == 3 and [row.kind for row in opened.ledger.log()].count("key") == 3
        for pem in pems:
            verify_chain(texts, pem, opened.ledger.log_head())
        assert not [line for line in audit(opened, trusted_key=pems[0]).problems if "key" in line]


def test_who_only_reads_needs_no_token_and_who_signs_is_told(
    run: Path, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Run.open(run) as opened:
        change_key(opened, "rotation", token=Pkcs11Uri.parse(uri_of(module)))
        publish(opened)
    monkeypatch.delenv(PIN_VARIABLE)
    with Run.open(run, read_only=True) as opened:
        assert audit(opened).problems == ()
    with Run.open(run) as opened:
        with pytest.raises(ConfigError, match="asks for a PIN"):
            deletion.accept(opened, ["r3"], [])
        assert opened.ledger.deletions() == () and opened.ledger.log_length() == 2, "no deletion without its receipt"
    monkeypatch.setenv(PIN_VARIABLE, "000000")
    pkcs11.lib(module).reinitialize()  # a login is the process's, until the library begins anew
    with Run.open(run) as opened, pytest.raises(LedgerError, match="does not sign: PinIncorrect"):
        deletion.accept(opened, ["r3"], [])
    monkeypatch.delenv(PIN_VARIABLE)
    (tmp_path / "pin").write_text(f"{PIN}\n")
    named = Pkcs11Signer.on_token(Pkcs11Uri.parse(uri_of(module, more=f"&pin-source=file:{tmp_path / 'pin'}")))
    monkeypatch.setenv(PIN_VARIABLE, PIN)
    with Run.open(run) as opened:
        assert named.public_key == opened.keys.public_key
        assert deletion.accept(opened, ["r3"], []).proof is not None


def test_a_session_that_the_token_has_closed_is_opened_again(module: str) -> None:
    signer = Pkcs11Signer.on_token(Pkcs11Uri.parse(uri_of(module)))
    pkcs11.lib(module).reinitialize()
    assert len(signer.sign(b"said")) == 64


def test_another_key_under_the_same_name_signs_nothing(module: str) -> None:
    first, second = (Pkcs11Signer.on_token(Pkcs11Uri.parse(uri_of(module, label))) for label in ("first", "second"))
    exchanged = Pkcs11Signer(first.uri, second.public_key)
    with pytest.raises(LedgerError, match="is another one than when the run's log went over to it"):
        exchanged.sign(b"said")


def test_a_token_that_is_not_there_changes_nothing(run: Path, module: str, tmp_path: Path) -> None:
    wrong = (
        (uri_of(module).replace("token=run", "token=other"), "NoSuchToken"),
        (uri_of(module, "third"), "NoSuchKey"),
        (uri_of("/nowhere/lib.so"), "/nowhere/lib.so"),
    )
    before = sorted(os.listdir(tmp_path / "run.keys"))
    for uri, told in wrong:
        refused = s3t("rotate-key", str(run), "--token", uri)
        assert refused.exit_code == LedgerError.exit_code and told in refused.stderr, refused.output
    assert sorted(os.listdir(tmp_path / "run.keys")) == before
    with Run.open(run) as opened:
        assert opened.ledger.log_length() == 1


def test_a_change_that_was_cut_off_ends_as_it_began(run: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = Pkcs11Uri.parse(uri_of(module))
    with monkeypatch.context() as patch, Run.open(run) as opened:
        patch.setattr(opened.ledger, "change_key", lambda *said: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            change_key(opened, "rotation", token=uri)
    with Run.open(run) as opened:
        with pytest.raises(LedgerError, match="a change to another key on a token was begun"):
            change_key(opened, "rotation")
        assert change_key(opened, "rotation", token=uri).facts.next_key == opened.keys.public_key.hex()
        deletion.accept(opened, ["r3"], [])


def test_a_file_that_says_half_is_refused(tmp_path: Path) -> None:
    Keys.load_or_create(tmp_path)
    (tmp_path / "signing.key").write_text("pkcs11:token=run;object=first?module-path=/x.so\n")
    with pytest.raises(LedgerError, match="not which public key it has"):
        Keys.load(tmp_path)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("/usr/lib/x.so", "is not a PKCS#11 URI"),
        ("pkcs11:token=a;object=b", "module-path"),
        ("pkcs11:token=a;object=b?module-path=x.so", "module-path"),
        ("pkcs11:token=a?module-path=/x.so", "a key on it"),
        ("pkcs11:object=a?module-path=/x.so", "name a token"),
        ("pkcs11:token=a;object=b;slot-id=1?module-path=/x.so", "slot-id=1"),
        ("pkcs11:token=a;token=c;object=b?module-path=/x.so", "token=c"),
        ("pkcs11:token=a;object=b;type=public?module-path=/x.so", "type=public"),
        ("pkcs11:token=a;object=b?module-path=/x.so&pin-source=secret", "not a file"),
        ("pkcs11:token=a b;object=b?module-path=/x.so", "is not a PKCS#11 URI"),
    ],
)
def test_a_uri_that_names_no_key_is_refused(uri: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Pkcs11Uri.parse(uri)
    assert told in str(refused.value)


def test_a_pin_in_a_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        Pkcs11Uri.parse("pkcs11:token=a;object=b?module-path=/x.so&pin-value=1234")
    assert "1234" not in f"{refused.value} {refused.value.fix}"


def test_percent_signs_are_decoded() -> None:
    uri = Pkcs11Uri.parse("pkcs11:serial=0f%20a;id=%01%ff;type=private?module-path=/a%20b.so&pin-source=file:///p%3Bq")
    assert (uri.serial, uri.id, uri.module, uri.pin_source) == ("0f a", b"\x01\xff", "/a b.so", Path("/p;q"))
