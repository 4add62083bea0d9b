"""A certificate as an in-toto statement: other tools can check it, and it states nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from s3t_ray.errors import DataError, VerificationFailed
from s3t_ray.proof.certificate import Certificate
from s3t_ray.proof.deletion_statement import PREDICATE, deletion_envelope, entries_in, statement_of
from s3t_ray.proof.dsse import enveloped, is_envelope, opened
from s3t_ray.proof.run_log import verify_certificate
from tests.fakes.command_line import s3t
from tests.unit.ledger.certify import KEYS, OTHER, PEM
from tests.unit.proof.test_handed_out import FROZEN, certificate

CERTIFICATE = certificate(2, "9" * 64)
ENVELOPE = deletion_envelope(CERTIFICATE, KEYS)


def checked_by_others(text: str, pem: bytes) -> object:
    """The statement, checked as the format's specification says, with nothing of ours."""
    envelope = json.loads(text)
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    message = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload])
    (signature,) = envelope["signatures"]
    load_pem_public_key(pem).verify(base64.b64decode(signature["sig"]), message)  # type: ignore[union-attr, call-arg]
    return json.loads(payload)


def test_others_can_check_it_and_read_it() -> None:
    statement = checked_by_others(ENVELOPE, PEM)
    assert isinstance(statement, dict)
    assert (statement["_type"], statement["predicateType"]) == ("https://in-toto.io/Statement/v1", PREDICATE)
    assert statement["subject"][0] == {"name": "certificate/req", "digest": {"sha256": CERTIFICATE.hash}}
    live = {subject["digest"]["sha256"] for subject in statement["subject"][1:]}
    assert live == {proof.adapter_sha256 for proof in CERTIFICATE.facts.stages_live} and live
    assert statement["predicate"]["certificate"] == json.loads(CERTIFICATE.to_json())
    with pytest.raises(InvalidSignature):
        checked_by_others(ENVELOPE, OTHER.public_key_pem)


def test_it_holds_the_certificate_of_any_format() -> None:
    old = verify_certificate(FROZEN[0])
    for each in (CERTIFICATE, old):
        assert entries_in(deletion_envelope(each, KEYS), PEM) == (each,)


def test_signatures_in_either_alphabet_and_of_others_beside_ours_are_taken() -> None:
    envelope = json.loads(ENVELOPE)
    stranger = json.loads(deletion_envelope(CERTIFICATE, OTHER))["signatures"]
    envelope["signatures"] = stranger + envelope["signatures"]
    envelope["payload"] = envelope["payload"].replace("+", "-").replace("/", "_")
    envelope["more"] = "as the format allows"
    assert entries_in(json.dumps(envelope), PEM) == (CERTIFICATE,)


def without(text: str, field: str) -> str:
    return json.dumps({name: value for name, value in json.loads(text).items() if name != field})


def with_payload(change: Callable[[dict[str, object]], object]) -> str:
    """An envelope of another statement, signed by the run's key."""
    statement = json.loads(json.dumps(statement_of(CERTIFICATE)))
    change(statement)
    return enveloped(statement, KEYS)


def edited_payload() -> str:
    envelope = json.loads(ENVELOPE)
    payload = base64.b64decode(envelope["payload"]).replace(b'"records":', b'"records":1', 1)
    return json.dumps({**envelope, "payload": base64.b64encode(payload).decode()})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (edited_payload(), "no valid signature"),
        (ENVELOPE.replace("vnd.in-toto", "vnd.in.toto"), "payload is of type"),
        (deletion_envelope(CERTIFICATE, OTHER), "no valid signature"),
        (json.dumps({**json.loads(ENVELOPE), "signatures": []}), "no valid signature"),
        (json.dumps({**json.loads(ENVELOPE), "payload": "#"}), "not base64"),
        (without(ENVELOPE, "signatures"), "signatures"),
        ("{}", "payloadType"),
        (enveloped([], KEYS), "not an in-toto statement"),
        (with_payload(lambda told: told.update(_type="https://in-toto.io/Statement/v0.1")), "not an in-toto statement"),
        (with_payload(lambda told: told.update(predicateType="urn:else")), "is of type 'urn:else'"),
        (with_payload(lambda told: told.update(subject=[])), "does not match the certificate"),
        (with_payload(lambda told: told.update(more=1)), "does not match the certificate"),
        (with_payload(lambda told: told.update(predicate={"certificate": {}})), "not a certificate"),
    ],
)
def test_what_is_not_such_a_statement_is_refused(text: str, reason: str) -> None:
    with pytest.raises(VerificationFailed, match=reason):
        entries_in(text, PEM)


def test_a_certificate_of_another_key_in_a_good_envelope_is_refused() -> None:
    foreign = CERTIFICATE.model_copy(update={"public_key": OTHER.public_key.hex()})
    assert isinstance(foreign, Certificate)
    with pytest.raises(VerificationFailed, match="signed by another key"):
        entries_in(deletion_envelope(foreign, KEYS), PEM)


def test_the_command_takes_an_envelope_for_what_it_holds(tmp_path: Path) -> None:
    for name, text in (("one.json", ENVELOPE), ("two.json", CERTIFICATE.to_json())):
        (tmp_path / name).write_text(text)
    (tmp_path / "public.pem").write_bytes(PEM)
    files = [str(tmp_path / "one.json"), str(tmp_path / "two.json")]
    result = s3t("check-certificate", *files, "--public-key", str(tmp_path / "public.pem"), "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["certificates"] == 1, "both are of one entry"
    (tmp_path / "one.json").write_text(edited_payload())
    refused = s3t("check-certificate", files[0], "--public-key", str(tmp_path / "public.pem"))
    assert refused.exit_code == VerificationFailed.exit_code and "no valid signature" in refused.stderr
    (tmp_path / "one.json").write_text("\n")
    assert s3t("check-certificate", files[0], "--public-key", str(tmp_path / "public.pem")).exit_code == (
        DataError.exit_code
    )


def test_what_is_an_envelope() -> None:
    assert is_envelope(ENVELOPE)
    assert not is_envelope(CERTIFICATE.to_json())
    assert not is_envelope('"payloadType"') and not is_envelope("[" * 100_000 + '"payloadType"')
    assert opened(ENVELOPE, [KEYS.public_key])["predicateType"] == PREDICATE
