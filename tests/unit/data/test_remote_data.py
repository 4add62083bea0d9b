"""Data on other machines, read by the real clients from servers on this one: S3, GCS, the hub and HTTPS."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.read import read_records
from s3t_ray.data.readers.reading import Reading
from s3t_ray.errors import DataError
from tests.fakes.object_servers import S3, Files, Gcs, Hub, served


def row(name: str) -> bytes:
    return json.dumps({"id": name, "instruction": "Q", "output": "A"}).encode()


FOLDER = {
    "data/part-1.jsonl": row("a"),
    "data/part-2.jsonl.gz": gzip.compress(row("b")),
    "data/README.md": b"x",
    "splits/train.jsonl": row("c"),
    "splits/test.jsonl": row("d"),
}
SECRET = "do-not-show"


@pytest.fixture(autouse=True)
def no_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(params=["s3", "gs", "hf"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The URI of a folder, and what follows a path in it."""
    kind, start = {
        "s3": (S3, "s3://bucket"),
        "gs": (Gcs, "gs://anonymous@bucket"),
        "hf": (Hub, f"hf://datasets/{request.node.name.split('[')[0]}/set"),
    }[request.param]
    bucket = start.split("datasets/")[-1].split("@")[-1].removeprefix("s3://")
    with served(kind, {f"{bucket}/{name}": data for name, data in FOLDER.items()}) as address:
        if request.param == "hf":
            monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://{address}")
            monkeypatch.setattr(
                huggingface_hub.constants,
                "HUGGINGFACE_CO_URL_TEMPLATE",
                f"http://{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            )
            yield start, ""
        else:
            limit = "&region=us-east-1" if request.param == "s3" else "&retry_limit_seconds=2"
            yield start, f"?scheme=http&endpoint_override={address}{limit}"


def read(uri: str, **data: str) -> tuple[list[str], Reading]:
    reading = Reading()
    found = read_records(Data.model_validate({"path": uri, **data}), Task(), reading=reading)
    return [record.id for record in found], reading


def refused(uri: str) -> DataError:
    with pytest.raises(DataError) as caught:
        read(uri)
    return caught.value


def test_a_file_a_folder_a_pattern_and_splits(place: tuple[str, str]) -> None:
    start, query = place
    assert read(f"{start}/data/part-1.jsonl{query}")[0] == ["a"]
    ids, reading = read(f"{start}/data{query}")
    assert ids == ["a", "b"]
    assert [name.split("/data/")[1] for name in reading.files] == ["part-1.jsonl", "part-2.jsonl.gz"]
    assert [name.split("/data/")[1] for name in reading.skipped] == ["README.md (not a data file)"]
    assert not any("endpoint_override" in note or "anonymous" in note for note in reading.notes())
    assert read(f"{start}/data/*.gz{query}")[0] == ["b"]
    assert read(f"{start}/splits{query}")[0] == ["c"]
    assert read(f"{start}/splits{query}", split="test")[0] == ["d"]


def test_what_is_not_there_is_said_without_secrets(place: tuple[str, str]) -> None:
    start, query = place
    for path in ("data/none.jsonl", "none", "data/*.csv"):
        error = refused(f"{start}/{path}{query}")
        assert "data.path = " in error.problem and path in error.problem and error.fix
        assert "endpoint_override" not in error.problem.split(" cannot be read")[0] and SECRET not in error.problem


def test_credentials_in_an_address_are_not_shown() -> None:
    with served(S3, {"bucket/x.jsonl": b""}) as address:
        uri = f"s3://key:{SECRET}@bucket/none.jsonl?scheme=http&endpoint_override={address}&region=us-east-1"
        assert SECRET not in str(refused(uri))


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=2100))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*private))
    return folder / "cert.pem", folder / "key.pem"


def test_https_with_a_certificate_that_is_known_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with served(Files, {"x.jsonl": row("a")}, tls=context) as address:
        uri = f"https://{address}/x.jsonl?token={SECRET}"
        unknown = refused(uri)
        assert "certificate" in unknown.problem and SECRET not in str(unknown)
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert read(uri)[0] == ["a"]
        assert "404" in refused(f"https://{address}/y.jsonl").problem
