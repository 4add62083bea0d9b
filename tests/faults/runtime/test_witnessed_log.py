"""A run's log with a third-party witness: a separate process with its own key and state.

Whoever holds the run's keys takes the run back, forks it, or signs its whole log anew: the run itself can find nothing
wrong with what is genuinely signed. The witness does, also after it was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.run_log import parse_entry
from s3t_ray.proof.signed_entry import FIRST, signed
from s3t_ray.run import deletion
from s3t_ray.run.log.log_witnesses import SawAnotherLog, WitnessAddress, cosign, require_cosigned
from s3t_ray.run.log.published_log import publish, published, verifier_key
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from s3t_ray.tlog.cosignature import cosigned_by
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.witness_folder import create
from tests.cluster.raylets import free_port
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.command_line import s3t


class WitnessProcess:
    """`s3t witness serve`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.address = WitnessAddress.parse(f"http://127.0.0.1:{self.port} {create(folder, 'witness.example')}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, log: str) -> None:
        arguments = ["witness", "serve", str(self._folder), "--log", log, "--port", str(self.port)]
        self._process = subprocess.Popen([sys.executable, "-m", "s3t_ray.cli.main", *arguments])
        end = time.monotonic() + 120
        while not self._listens():
            assert self._process.poll() is None and time.monotonic() < end
            time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/none/checkpoint", timeout=10)
        except urllib.error.HTTPError:
            return True
        except urllib.error.URLError:
            return False
        return True


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[WitnessProcess]:
    process = WitnessProcess(tmp_path / "witness")
    yield process
    process.kill()


def settled(cluster: Cluster, *, cosigned: bool) -> None:
    """Rounds until nothing is left to do and the witness was asked about the newest checkpoint."""
    end = time.monotonic() + 60
    while True:
        cluster.settle()
        note = published(cluster.run)
        failures = [str(row.subject) for row in cluster.run.ledger.failures()]
        whole = note is not None and LogHead.parse(note.text).size == cluster.run.ledger.log_head().sequence
        if whole and failures == ([] if cosigned else ["log"]) and (not cosigned or len(note.signatures) == 2):  # type: ignore[union-attr]
            return
        assert time.monotonic() < end, (failures, note)
        time.sleep(0.02)


def refused(run: Run, witness: WitnessProcess, told: str) -> None:
    """The run publishes and audits itself without a complaint; with the witness it cannot."""
    note = publish(run)
    assert note is not None
    assert not [line for line in audit(run).problems if "log" in line or "checkpoint" in line]
    with pytest.raises(SawAnotherLog, match=told):
        require_cosigned(cosign(run, note))
    seen = audit(run, witnesses=[witness.address]).problems
    assert any("what witness witness.example has cosigned has " in line for line in seen), seen
    stated = s3t("head", run.location.storage_uri, "--publish")
    assert stated.exit_code == VerificationFailed.exit_code and "taken back, forked or rewritten" in stated.stderr


def forget(folder: Path) -> None:
    """The key holder also erases the recorded length of the log beside the keys."""
    for path in (folder / "run.keys").glob("*.log.json"):
        path.unlink()


def take_back(folder: Path) -> None:
    shutil.rmtree(folder / "run")
    shutil.copytree(folder / "yesterday", folder / "run")
    forget(folder)


def sign_anew(run: Run, folder: Path) -> None:
    """Every entry has another time, in a complete chain that the run's key really signed."""
    previous = FIRST
    with sqlite3.connect(folder / "run" / "ledger.db") as connection:
        for row in run.ledger.log():
            entry = parse_entry(row.text)
            changed = {"previous": previous}
            if hasattr(entry.facts, "accepted_at"):
                changed["accepted_at"] = "2020-01-01T00:00:00+00:00"
            said = {name: getattr(entry, name) for name in type(entry).model_fields}
            facts = entry.facts.model_copy(update=changed)
            said = {name: value for name, value in said.items() if name not in ("facts", "public_key", "signature")}
            anew = signed(type(entry), run.keys, **said, facts=facts)
            previous = anew.hash
            connection.execute(
                "UPDATE s3t_log SET entry = ?, hash = ? WHERE sequence = ?", (anew.to_json(), anew.hash, row.sequence)
            )
    connection.close()
    shutil.rmtree(folder / "run" / layout.LOG)
    forget(folder)


def test_a_witness_finds_what_a_key_holder_did_to_the_log(tmp_path: Path, witness: WitnessProcess) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    address = f"{witness.address.url} {witness.address.key}"
    cluster = Cluster(small_config(tmp_path, log={"witnesses": [address]}))
    settled(cluster, cosigned=False)  # nobody listens yet: the run goes on, and says so
    log = str(verifier_key(cluster.run))
    witness.start(log)
    settled(cluster, cosigned=True)

    deletion.accept(cluster.run, ["r3"], [])
    settled(cluster, cosigned=True)
    note = published(cluster.run)
    assert note is not None
    assert witness.address.key in cosigned_by(note, [witness.address.key])
    request = cluster.run.ledger.deletions()[0].receipt.request_id
    cluster.run.close()
    proof, one = tmp_path / "proof", tmp_path / "one.json"
    s3t("certificate", str(tmp_path / "run"), request, "--out", str(one), "--proof", str(proof))
    checked = s3t(
        *("check-certificate", str(one), "--public-key", str(tmp_path / "run.keys" / "public.pem")),
        *("--proof", str(proof), "--witness", str(witness.address.key), "--json"),
    )
    assert json.loads(checked.stdout)["in_log"][0]["cosigned"][0].startswith("witness.example ")

    shutil.copytree(tmp_path / "run", tmp_path / "yesterday")
    with Run.open(tmp_path / "run") as run:
        deletion.accept(run, ["r7"], [])
        newest = publish(run)
        assert newest is not None
        require_cosigned(cosign(run, newest))
        assert audit(run, witnesses=[witness.address]).excused
    shutil.copytree(tmp_path / "run", tmp_path / "today")

    take_back(tmp_path)
    with Run.open(tmp_path / "run") as run:
        refused(run, witness, "it saw 5 entries of the log, which has 4 now")
        deletion.accept(run, ["r9"], [])  # another deletion than r7, in its place
        refused(run, witness, "it saw 5 other entries")
        witness.kill()
        witness.start(log)
        deletion.accept(run, ["r11"], [])
        refused(run, witness, "it saw 5 other entries")

    shutil.rmtree(tmp_path / "run")
    shutil.copytree(tmp_path / "today", tmp_path / "run")
    forget(tmp_path)
    with Run.open(tmp_path / "run") as run:
        sign_anew(run, tmp_path)
        note = publish(run)
        assert note is not None
        with pytest.raises(SawAnotherLog, match="it saw 5 other entries"):
            require_cosigned(cosign(run, note))
        deletion.accept(run, ["r12"], [])
        note = publish(run)
        assert note is not None
        with pytest.raises(SawAnotherLog, match="it saw 5 other entries"):
            require_cosigned(cosign(run, note))
        assert any("rewritten or forked" in line for line in audit(run, witnesses=[witness.address]).problems)
