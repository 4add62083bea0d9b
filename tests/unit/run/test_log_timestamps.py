"""Timestamps of a run's checkpoints, by an authority of the test's own: OpenSSL's, behind a local HTTP server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.errors import ConfigError, LedgerError, StoreError, VerificationFailed
from s3t_ray.run import deletion
from s3t_ray.run.log.log_timestamps import Timestamps, stamped_checkpoint
from s3t_ray.run.log.published_log import publish
from s3t_ray.run.run import Run
from s3t_ray.tlog.signed_note import SignedNote
from s3t_ray.tlog.timestamp import granted, request_for, stamped_at
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.command_line import s3t

CONFIG = """
[ req ]
distinguished_name = name
[ name ]
[ ca ]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[ tsa ]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[ stamps ]
dir = {folder}
serial = $dir/serial
signer_cert = $dir/tsa.pem
signer_key = $dir/tsa.key
signer_digest = sha512
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
ess_cert_id_alg = sha256
"""


class Authority:
    """A certificate authority and a timestamp authority in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "conf").write_text(CONFIG.format(folder=folder))
        (folder / "serial").write_text("01\n")
        for name, extensions in (("ca", "ca"), ("tsa", "tsa")):
            self._openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", f"{name}.key")
            self._openssl(
                "req", "-new", "-config", "conf", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr"
            )
            signer = (
                ("-signkey", "ca.key") if name == "ca" else ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
            )
            self._openssl(
                *("x509", "-req", "-in", f"{name}.csr", *signer, "-days", "30"),
                *("-extfile", "conf", "-extensions", extensions, "-out", f"{name}.pem"),
            )
        self.roots = (folder / "ca.pem").read_bytes()

    def reply(self, request: bytes) -> bytes:
        (self.folder / "request").write_bytes(request)
        self._openssl("ts", "-reply", "-config", "conf", "-section", "stamps", "-queryfile", "request", "-out", "reply")
        return (self.folder / "reply").read_bytes()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "tsa")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            data = authority.reply(body) if self.path == "/tsa" else b"no"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()
    listening.server_close()


def begun(folder: Path, **log: object) -> Cluster:
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    return Cluster(small_config(folder, log=log))


def test_a_reply_of_the_authority_says_when_the_checkpoint_was_there(authority: Authority, tmp_path: Path) -> None:
    text = "s3t-ray/x\n1\nroot\n"
    reply = authority.reply(request_for(text))
    assert granted(reply, text)
    assert abs(stamped_at(reply, text, authority.roots) - datetime.now(UTC)) < timedelta(minutes=5)
    other = Authority(tmp_path / "other")
    for wrong in (
        (reply, text.replace("1", "2"), authority.roots),
        (reply, text, other.roots),
        (other.reply(request_for(text)), text, authority.roots),
        (reply[:-1] + bytes([reply[-1] ^ 1]), text, authority.roots),
        (b"", text, authority.roots),
        (reply, text, b"no certificate"),
    ):
        with pytest.raises(VerificationFailed):
            stamped_at(*wrong)
    assert not granted(reply, "other") and not granted(b"junk", text)


def test_the_run_has_its_checkpoints_stamped_and_hands_them_out(
    authority: Authority, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3t_ray.audit.leftovers.ACCEPTANCE_SECONDS", 0.0)
    cluster = begun(tmp_path, timestamps=f"{server}/tsa", timestamp_seconds=0)
    cluster.settle()
    deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    request = cluster.run.ledger.deletions()[0].receipt.request_id
    cluster.run.close()
    run, one, proof, stamp, roots = (tmp_path / name for name in ("run", "one", "proof", "stamp", "roots"))
    assert s3t("head", str(run), "--publish").exit_code == 0
    written = s3t("certificate", str(run), request, "--out", str(one), "--proof", str(proof), "--timestamp", str(stamp))
    assert written.exit_code == 0, written.stderr
    roots.write_bytes(authority.roots)
    check = (
        *("check-certificate", str(one), "--public-key", str(tmp_path / "run.keys" / "public.pem")),
        *("--proof", str(proof), "--timestamp", str(stamp), "--tsa-roots", str(roots)),
    )
    told = json.loads(s3t(*check, "--json").stdout)
    assert datetime.fromisoformat(told["stamped_at"]) - datetime.now(UTC) < timedelta(minutes=5)
    assert "the log had this entry at" in s3t(*check).stdout
    stamp.write_bytes(authority.reply(request_for("another checkpoint")))
    assert s3t(*check).exit_code == VerificationFailed.exit_code
    with Run.open(run, read_only=True) as opened:
        assert audit(opened).problems == ()
        reply = sorted((run / "log" / "timestamps").glob("*/reply.tsr"))[0]
        reply.write_bytes(stamp.read_bytes())
        assert "is not a timestamp of the checkpoint beside it" in audit(opened).problems[0]


def test_a_stamp_is_asked_for_when_it_is_due_and_not_before(server: str, tmp_path: Path) -> None:
    cluster = begun(tmp_path, timestamps=f"{server}/tsa", timestamp_seconds=60)
    run, now = cluster.run, [0.0]
    note = publish(run)
    assert note is not None
    stamps = Timestamps(run, lambda: now[0])
    assert stamps.stamp(note)
    deletion.accept(run, ["r3"], [])
    later = publish(run)
    assert later is not None
    assert not stamps.stamp(later)
    with pytest.raises(LedgerError, match="no checkpoint with entry 2"):
        stamped_checkpoint(run, 2)
    now[0] = 61.0
    assert stamps.stamp(later)
    assert stamped_checkpoint(run, 2)[0] == later
    assert stamped_checkpoint(run, 1)[0] == note
    run.close()


def test_a_server_that_does_not_stamp_is_reported(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = begun(tmp_path, timestamps=f"{server}/nothing")
    note = publish(cluster.run)
    assert isinstance(note, SignedNote)
    with pytest.raises(StoreError, match="did not give a timestamp"):
        Timestamps(cluster.run).stamp(note)
    assert not cluster.run.store.files("log/timestamps")
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(ConfigError, match="rfc3161-client"):
        Timestamps(cluster.run).stamp(note)
    cluster.run.close()
