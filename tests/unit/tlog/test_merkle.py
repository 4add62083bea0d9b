"""The tree against RFC 6962's own recursive definitions, and against Certificate Transparency's known answers."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.tlog.merkle import (
    EMPTY_ROOT,
    CompactRange,
    consistency_path,
    inclusion_path,
    is_consistent,
    leaf_hash,
    node_hash,
    range_root,
    root_of_inclusion,
)

CT_ENTRIES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOT_OF_8 = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def slow_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, as it is written there."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return node_hash(slow_root(leaves[:k]), slow_root(leaves[k:]))


def slow_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m < k:
        return [*slow_path(m, leaves[:k]), slow_root(leaves[k:])]
    return [*slow_path(m - k, leaves[k:]), slow_root(leaves[:k])]


def slow_consistency(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [slow_root(leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m <= k:
        return [*slow_consistency(m, leaves[:k], whole), slow_root(leaves[k:])]
    return [*slow_consistency(m - k, leaves[k:], False), slow_root(leaves[:k])]


def leaves_of(count: int) -> list[bytes]:
    return [leaf_hash(b"entry %d" % number) for number in range(count)]


def subtree_of(leaves: list[bytes]):  # type: ignore[no-untyped-def]
    return lambda level, index: slow_root(leaves[index << level : (index + 1) << level])


def test_known_answers_of_certificate_transparency() -> None:
    leaves = [leaf_hash(entry) for entry in CT_ENTRIES]
    assert hashlib.sha256(b"\x00").digest() == leaves[0]
    assert slow_root(leaves).hex() == CT_ROOT_OF_8
    grown = CompactRange()
    for leaf in leaves:
        grown.append(leaf)
    assert grown.root().hex() == CT_ROOT_OF_8


@pytest.mark.parametrize("size", range(40))
def test_roots_and_proofs_are_those_of_the_definitions(size: int) -> None:
    leaves = leaves_of(size)
    subtree, root = subtree_of(leaves), slow_root(leaves)
    assert range_root(0, size, subtree) == root
    for index in range(size):
        path = inclusion_path(index, size, subtree)
        assert path == slow_path(index, leaves)
        assert root_of_inclusion(leaves[index], index, size, path) == root
    for old in range(size + 1):
        proof = consistency_path(old, size, subtree)
        assert proof == (slow_consistency(old, leaves) if old else [])
        assert is_consistent(old, slow_root(leaves[:old]), size, root, proof)


@given(st.integers(1, 70), st.data())
def test_a_proof_of_another_leaf_place_or_size_does_not_hold(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    path, root = slow_path(index, leaves), slow_root(leaves)
    assert root_of_inclusion(leaf_hash(b"other"), index, size, path) != root
    for other in {data.draw(st.integers(0, size - 1)), index - 1, index + 1} - {index}:
        assert root_of_inclusion(leaves[index], other, size, path) != root
    assert root_of_inclusion(leaves[index], index, size, [*path, leaves[0]]) is None
    if path:
        assert root_of_inclusion(leaves[index], index, size, path[:-1]) != root
        changed = data.draw(st.integers(0, len(path) - 1))
        assert root_of_inclusion(leaves[index], index, size, [*path[:changed], b"x" * 32, *path[changed + 1 :]]) != root


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_a_history_that_was_changed_is_not_consistent(one: int, two: int, data: st.DataObject) -> None:
    old, new = sorted((one, two))
    leaves = leaves_of(new)
    changed = data.draw(st.integers(0, old - 1))
    forged = [*leaves[:changed], leaf_hash(b"forged"), *leaves[changed + 1 :]]
    old_root = slow_root(leaves[:old])
    for proof in (slow_consistency(old, forged), slow_consistency(old, leaves)):
        assert not is_consistent(old, old_root, new, slow_root(forged), proof)
    if old < new:
        honest = slow_consistency(old, leaves)
        assert not is_consistent(new, slow_root(leaves), old, old_root, honest)
        assert not is_consistent(old, old_root, new, slow_root(leaves), honest[:-1])
        assert not is_consistent(old, old_root, new, slow_root(leaves), [*honest, leaves[0]])


@given(st.integers(0, 200))
def test_a_tree_grows_leaf_by_leaf_from_wherever_it_stood(size: int) -> None:
    leaves = leaves_of(size + 3)
    grown = CompactRange()
    for leaf in leaves[:size]:
        grown.append(leaf)
    again = CompactRange(grown.size, grown.roots)
    for leaf in leaves[size:]:
        again.append(leaf)
    assert again.root() == slow_root(leaves)


def test_a_right_edge_that_does_not_fit_its_size_is_refused() -> None:
    with pytest.raises(ValueError, match="2 full subtrees, not 1"):
        CompactRange(3, [b"x" * 32])
    with pytest.raises(ValueError, match="leaf 3 is not in a tree of 3"):
        inclusion_path(3, 3, subtree_of(leaves_of(3)))
    with pytest.raises(ValueError, match="cannot begin with 4"):
        consistency_path(4, 3, subtree_of(leaves_of(3)))
