"""A witness: what it cosigns, what it refuses, and that neither a kill nor a key holder makes it forget."""

from __future__ import annotations

import base64
import hashlib
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from s3t_ray.errors import StoreError
from s3t_ray.tlog.cosignature import Cosigner, cosigned_by
from s3t_ray.tlog.log_head import LogHead
from s3t_ray.tlog.merkle import EMPTY_ROOT, consistency_path, leaf_hash, range_root
from s3t_ray.tlog.signed_note import NoteSigner, SignedNote
from s3t_ray.tlog.witness import Witness
from tests.unit.tlog.test_merkle import subtree_of

LOG = NoteSigner.of("runs.example/alpaca", Ed25519PrivateKey.from_private_bytes(b"l" * 32))
COSIGNER = Cosigner("witness.example", Ed25519PrivateKey.from_private_bytes(b"w" * 32))


def history(*entries: bytes) -> list[bytes]:
    return [leaf_hash(entry) for entry in entries]


HONEST = history(b"a", b"b", b"c", b"d", b"e")


def request(leaves: list[bytes], size: int, old: int, signer: NoteSigner = LOG, origin: str = LOG.key.name) -> str:
    subtree = subtree_of(leaves)
    note = signer.sign(LogHead(origin, size, range_root(0, size, subtree)).text())
    proof = "".join(base64.b64encode(each).decode() + "\n" for each in consistency_path(min(old, size), size, subtree))
    return f"old {old}\n{proof}\n{note}"


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "state" / "witness.db", COSIGNER, [LOG.key], clock=lambda: 1_700_000_000.9)


def test_it_cosigns_a_log_that_grows(witness: Witness, tmp_path: Path) -> None:
    for old, size in ((0, 2), (2, 2), (2, 5)):
        body = request(HONEST, size, old)
        reply = witness.add_checkpoint(body)
        assert reply.status == 200
        note = SignedNote.parse(body.partition("\n\n")[2] + reply.body)
        assert cosigned_by(note, [COSIGNER.key]) == {COSIGNER.key: 1_700_000_000}
    again = Witness(tmp_path / "state" / "witness.db", COSIGNER, [LOG.key])
    newest = again.checkpoint(hashlib.sha256(LOG.key.name.encode()).hexdigest())
    assert newest is not None
    assert LogHead.parse(SignedNote.parse(newest).text).size == 5
    assert cosigned_by(SignedNote.parse(newest), [COSIGNER.key])
    assert again.checkpoint("0" * 64) is None


def test_it_refuses_a_rollback_a_fork_and_a_rewrite_by_whoever_holds_the_key(witness: Witness) -> None:
    assert witness.add_checkpoint(request(HONEST, 4, 0)).status == 200
    rollback = witness.add_checkpoint(request(HONEST, 3, 3))
    assert (rollback.status, rollback.body, rollback.content_type) == (409, "4\n", "text/x.tlog.size")
    forged = history(b"a", b"X", b"c", b"d", b"e")
    fork = witness.add_checkpoint(request(forged, 4, 4))
    assert (fork.status, fork.body, fork.content_type) == (409, "4\n", "text/x.tlog.size")  # of the same size
    assert witness.add_checkpoint(request(forged, 5, 4)).status == 422  # a rewrite that grew on
    assert witness.add_checkpoint(request(forged, 5, 0)).status == 409  # as if it were new
    assert witness.add_checkpoint(request(HONEST, 5, 4)).status == 200  # none of it spoiled the honest log


def test_the_statuses_of_the_protocol(witness: Witness) -> None:
    stranger = NoteSigner.of(LOG.key.name, Ed25519PrivateKey.from_private_bytes(b"s" * 32))
    unknown = NoteSigner.of("other.example", Ed25519PrivateKey.from_private_bytes(b"o" * 32))
    assert witness.add_checkpoint(request(HONEST, 2, 0, unknown, "other.example")).status == 404
    assert witness.add_checkpoint(request(HONEST, 2, 0, stranger)).status == 403
    tampered = request(HONEST, 2, 0).replace("\n2\n", "\n3\n")
    assert witness.add_checkpoint(tampered).status == 403
    assert witness.add_checkpoint(request(HONEST, 2, 3)).status == 400
    for body in ("", "old 0", "old 00\n\nx", "new 0\n\n" + request(HONEST, 2, 0), "old 0\nnotahash\n\nx"):
        assert witness.add_checkpoint(body).status == 400
    assert witness.add_checkpoint(request(HONEST, 2, 0).replace("old 0\n", "old 0\n" + "A" * 43 + "=\n")).status == 422
    wrong_empty = LOG.sign(LogHead(LOG.key.name, 0, b"r" * 32).text())
    assert witness.add_checkpoint(f"old 0\n\n{wrong_empty}").status == 409
    empty = LOG.sign(LogHead(LOG.key.name, 0, EMPTY_ROOT).text())
    assert witness.add_checkpoint(f"old 0\n\n{empty}").status == 200


def test_of_two_forks_at_once_one_is_cosigned(witness: Witness) -> None:
    forged = history(b"a", b"X")
    bodies = [request(HONEST, 2, 0), request(forged, 2, 0)] * 4
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda body=body: statuses.append(witness.add_checkpoint(body).status))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, *[409] * 7]


def test_a_state_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot keep its state"):
        Witness(tmp_path / "file" / "witness.db", COSIGNER, [LOG.key])
