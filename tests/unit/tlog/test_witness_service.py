"""The witness as people run it: created by a command, queried over HTTP, killed, and queried again."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from s3t_ray.cli.main import app
from s3t_ray.cli.proofs.witness_command import _lines
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
    with pytest.raises(ConfigError, match="already holds a witness"):
        create(tmp_path / "w", "another.example")
    assert open_witness(tmp_path / "w", [LOG.key]).key == key
    with pytest.raises(ConfigError, match="must not contain spaces"):
        create(tmp_path / "v", "two words")
    with pytest.raises(ConfigError, match="no witness in"):
        open_witness(tmp_path / "nowhere", [LOG.key])
    held = tmp_path / "w" / "witness.key"
    for damaged in ("", "junk", held.read_text()[:-9], held.read_text().replace("witness.example", "another.example")):
        held.write_text(damaged)
        with pytest.raises(ConfigError, match="no witness in"):
            open_witness(tmp_path / "w", [LOG.key])


def test_of_many_made_at_once_in_one_folder_one_stands_under_its_own_name(tmp_path: Path) -> None:
    made: list[VerifierKey] = []
    refused: list[ConfigError] = []

    def make(number: int) -> None:
        try:
            made.append(create(tmp_path / "w", f"witness{number}.example"))
        except ConfigError as error:
            refused.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(refused) == 7
    assert open_witness(tmp_path / "w", [LOG.key]).key == made[0]


def test_a_kill_while_it_is_made_leaves_none_or_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    for step in ("fsync", "link", "unlink"):
        folder = tmp_path / step

        def die(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(os, step, die)
            with pytest.raises(Killed):
                create(folder, "first.example")
        if (folder / "witness.key").exists():
            assert open_witness(folder, [LOG.key]).key.name == "first.example"
        else:
            key = create(folder, "second.example")
            assert open_witness(folder, [LOG.key]).key == key


def test_a_file_of_keys_may_begin_with_a_byte_order_mark_and_indent_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "logs.txt"
    path.write_bytes(b"\xef\xbb\xbf# mine\r\n" + f"  # theirs\r\n\r\n  {LOG.key}  \r\n".encode())
    assert _lines(path) == [str(LOG.key)]


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
