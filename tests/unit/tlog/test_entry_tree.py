"""A tree over entries: heads, proofs and files agree with the definitions and with each other."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.errors import VerificationFailed
from s3t_ray.tlog.entry_tree import EntryTree
from s3t_ray.tlog.log_proof import LogProof
from s3t_ray.tlog.merkle import EMPTY_ROOT, is_consistent, leaf_hash, range_root
from s3t_ray.tlog.signed_note import NoteSigner
from s3t_ray.tlog.tiles import TiledLog
from tests.unit.tlog.test_merkle import slow_root

SIGNER = NoteSigner.of("runs.example/alpaca", Ed25519PrivateKey.from_private_bytes(b"l" * 32))


def tree_of(count: int) -> tuple[EntryTree, list[bytes]]:
    entries = [b"entry %d" % number for number in range(count)]
    return EntryTree(SIGNER.key.name, entries), entries


@given(st.integers(0, 300), st.data())
def test_head_proof_and_files_are_of_one_tree(count: int, data: st.DataObject) -> None:
    tree, entries = tree_of(count)
    assert tree.head().root == slow_root([leaf_hash(entry) for entry in entries])
    files = dict(tree.files())
    assert range_root(0, count, TiledLog(count, files.__getitem__).subtree) == tree.head().root
    old = data.draw(st.integers(0, count))
    assert is_consistent(old, tree.head(old).root, count, tree.head().root, tree.consistency(old))
    if count:
        index = data.draw(st.integers(0, count - 1))
        proof = LogProof.parse(str(tree.proof(index, SIGNER.sign(tree.head().text()))))
        head, _ = proof.check(entries[index], SIGNER.key)
        assert head == tree.head()


def test_a_proof_under_an_earlier_checkpoint_still_holds() -> None:
    tree, entries = tree_of(9)
    earlier = SIGNER.sign(tree.head(5).text())
    assert tree.proof(3, earlier).check(entries[3], SIGNER.key)[0].size == 5
    with pytest.raises(ValueError, match="leaf 7 is not in a tree of 5"):
        tree.proof(7, earlier)
    with pytest.raises(VerificationFailed, match="not at place 3"):
        tree.proof(3, earlier).check(entries[4], SIGNER.key)


def test_a_log_without_entries_has_a_head() -> None:
    tree, _ = tree_of(0)
    assert (tree.head().size, tree.head().root, list(tree.files())) == (0, EMPTY_ROOT, [])
