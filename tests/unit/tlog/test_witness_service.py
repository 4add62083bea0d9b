"""The witness as people run it: made by a command, asked over HTTP by another process, killed, and asked again."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from s3t_ray.cli.main import app
from s3t_ray.errors import ConfigError
from s3t_ray.serve.witness_http import MOST_BODY_BYTES, witness_app
from s3t_ray.tlog.cosignature import cosigned_by
from s3t_ray.tlog.signed_note import SignedNote, VerifierKey
from s3t_ray.tlog.witness_folder import create, open_witness
from tests.cluster.raylets import free_port
from tests.unit.tlog.test_witness import HONEST, LOG, history, request

ORIGIN = hashlib.sha256(LOG.key.name.encode()).hexdigest()


def test_a_witness_is_made_once_and_its_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["witness", "init", str(tmp_path / "w"), "--name", "witness.example"])
    key = VerifierKey.parse(made.stdout)
    assert open_witness(tmp_path / "w", [LOG.key]).key == key
    assert stat.S_IMODE((tmp_path / "w" / "witness.key").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="holds a witness already"):
        create(tmp_path / "w", "another.example")
    assert open_witness(tmp_path / "w", [LOG.key]).key == key
    with pytest.raises(ConfigError, match="no spaces"):
        create(tmp_path / "v", "two words")
    with pytest.raises(ConfigError, match="no witness in"):
        open_witness(tmp_path / "nowhere", [LOG.key])
    (tmp_path / "w" / "name").write_text("two words\n")
    with pytest.raises(ConfigError, match="no spaces"):
        open_witness(tmp_path / "w", [LOG.key])


def test_over_http(tmp_path: Path) -> None:
    key = create(tmp_path, "witness.example")
    client = TestClient(witness_app(open_witness(tmp_path, [LOG.key])))
    assert client.get(f"/{ORIGIN}/checkpoint").status_code == 404
    body = request(HONEST, 3, 0)
    answer = client.post("/add-checkpoint", content=body)
    assert answer.status_code == 200
    assert cosigned_by(SignedNote.parse(body.partition("\n\n")[2] + answer.text), [key])
    stale = client.post("/add-checkpoint", content=body)
    assert (stale.status_code, stale.text, stale.headers["content-type"]) == (409, "3\n", "text/x.tlog.size")
    assert SignedNote.parse(client.get(f"/{ORIGIN}/checkpoint").text).signed_by([LOG.key])
    assert client.post("/add-checkpoint", content=b"\xff\xfe").status_code == 400
    assert client.post("/add-checkpoint", content=b"x" * (MOST_BODY_BYTES + 1)).status_code == 413


def test_another_process_killed_after_its_answer_has_not_forgotten(tmp_path: Path) -> None:
    create(tmp_path / "w", "witness.example")
    (tmp_path / "logs.txt").write_text(f"# watched\n{LOG.key}\n")
    port = free_port()
    arguments = ["witness", "serve", str(tmp_path / "w"), "--log-file", str(tmp_path / "logs.txt"), "--port", str(port)]

    def started() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-m", "s3t_ray.cli.main", *arguments], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while post(port, "")[0] == 0:
            assert process.poll() is None and time.monotonic() < end
        return process

    process = started()
    try:
        assert post(port, request(HONEST, 4, 0))[0] == 200
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process = started()
        forged = history(b"a", b"X", b"c", b"d", b"e")
        assert post(port, request(forged, 5, 0)) == (409, "4\n")
        assert post(port, request(forged, 5, 4))[0] == 422
        assert post(port, request(HONEST, 5, 4))[0] == 200
    finally:
        process.kill()
        process.wait()


def post(port: int, body: str) -> tuple[int, str]:
    """Status and body; (0, "") while nobody listens."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/add-checkpoint", data=body.encode(), method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""
