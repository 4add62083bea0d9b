"""`s3t audit` on a published log that was reset, rewritten, forked or damaged, and on checkpoints kept elsewhere."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from s3t_ray.audit.audit import audit
from s3t_ray.run import deletion
from s3t_ray.run.integrity.published_head import CHECKPOINT
from s3t_ray.run.log.published_log import publish, published
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from s3t_ray.tlog.cosignature import Cosigner
from s3t_ray.tlog.entry_tree import EntryTree
from s3t_ray.tlog.signed_note import NoteSigner, SignedNote
from tests.unit.audit.tampering import found, problems, root, writable

NOW = int(datetime.now(UTC).timestamp())


def folder(run: Run) -> Path:
    return root(run) / layout.LOG


def test_a_log_behind_the_ledger_passes(lived: Run) -> None:
    with writable(lived) as run:
        deletion.accept(run, ["r5"], [])
    assert problems(lived) == ()
    with writable(lived) as run:
        publish(run)
    assert problems(lived) == ()


@pytest.mark.parametrize("name", ["tile/0/000.p/7", "tile/entries/000.p/7", "tile/0/000.p/1"])
def test_a_changed_file(lived: Run, name: str) -> None:
    path = folder(lived) / name
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    found(lived, f"log/{name} does not match the ledger's log")


def test_a_file_that_is_gone_or_one_too_many(lived: Run) -> None:
    (folder(lived) / "tile/0/000.p/7").unlink()
    found(lived, "log/tile/0/000.p/7 is gone")
    (folder(lived) / "tile/0/000.p/9").write_bytes(bytes(9 * 32))
    found(lived, "log/tile/0/000.p/9 does not match")
    (folder(lived) / "tile/0/0").write_bytes(b"")
    found(lived, "log/tile/0/0 is not a kind of file")


def test_a_checkpoint_that_is_gone_changed_or_of_another_key(lived: Run) -> None:
    path = root(lived) / CHECKPOINT
    text = path.read_text()
    path.write_text(text.replace("\n7\n", "\n6\n"))
    found(lived, "is not genuine")
    path.unlink()
    found(lived, "log/checkpoint is gone")
    shutil.rmtree(folder(lived))
    found(lived, "log/checkpoint is gone")
    path.parent.mkdir()
    path.write_bytes(b"\xff")
    found(lived, "log/checkpoint is not a text")


def test_whoever_has_the_key_signs_another_log_or_takes_it_back(lived: Run) -> None:
    """The run's own key on a log of other entries, and on one that is longer than the ledger's."""
    path = root(lived) / CHECKPOINT
    note = published(lived)
    assert note is not None
    signer = NoteSigner(f"s3t-ray/{lived.ledger.run_id}", lived.keys.public_key, lived.keys.sign)
    forged = EntryTree(signer.key.name, [b"other %d" % number for number in range(9)])
    path.write_text(str(signer.sign(forged.head(7).text())))
    found(lived, "the log was rewritten or forked")
    path.write_text(str(signer.sign(forged.head().text())))
    found(lived, "has 9 entries, but the ledger's log has 7: the log was reset")
    path.write_text(str(note))
    assert problems(lived) == ()
    assert audit(lived, checkpoints=[str(note)]).problems == ()
    for kept, told in ((forged.head(7), "rewritten"), (forged.head(), "was reset")):
        told_of = audit(lived, checkpoints=[str(signer.sign(kept.text()))]).problems
        assert len(told_of) == 1 and told in told_of[0]
    assert "is not genuine" in audit(lived, checkpoints=[str(note).replace("\n7\n", "\n6\n")]).problems[0]


def test_a_signature_line_of_an_unknown_key_says_nothing_and_a_false_one_of_a_witness_is_told(lived: Run) -> None:
    """The first is what c2sp.org/signed-note asks of every reader; nobody takes such a line for a word of anyone."""
    path = root(lived) / CHECKPOINT
    note = published(lived)
    assert note is not None
    witness, stranger = (Cosigner(name, Ed25519PrivateKey.generate()) for name in ("witness.example", "stranger"))
    log = lived.config.log.model_copy(update={"witnesses": (f"https://witness.example {witness.key}",)})
    lived.config = lived.config.model_copy(update={"log": log})
    for others in ([stranger.cosign(note.text, 1)], [stranger.cosign("other\n", 1)], [witness.cosign(note.text, NOW)]):
        path.write_text(str(note.with_signatures(others)))
        assert problems(lived) == ()
        again = published(lived)
        assert again is not None and again.text == note.text
    path.write_text(str(note.with_signatures([witness.cosign("other\n", 1)])))
    found(lived, "the signature in the name of witness.example is not genuine")
    path.write_text(str(SignedNote(note.text, (stranger.cosign(note.text, 1),))))
    found(lived, "is not signed by")
