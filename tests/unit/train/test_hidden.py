"""Stored hidden states: what is written comes back, row by row, and only for the data it was made from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import torch

from s3t_ray.errors import TrainError
from s3t_ray.store.layout import hidden_place
from s3t_ray.store.store import Store
from s3t_ray.train.examples import Item, SliceItems, make_item
from s3t_ray.train.hidden_states.hidden import HiddenStore
from s3t_ray.train.job import SliceInput, StageJob
from s3t_ray.train.ranks import Group

ALONE = Group(0, 1, torch.device("cpu"))
PIECE = SliceInput(slice=4, path="p", sha256="s" * 64, digest="d" * 64, records=3, seal_key="ab" * 32)
JOB = StageJob("stage", "recipe", "b" * 64, 7, (PIECE,), (), "cd" * 32)
FOLDER = hidden_place("b" * 64, 7, 4, "d" * 64).folder


def items(*lengths: int) -> SliceItems:
    made = tuple(make_item(str(row), 4, row, range(length), range(length)) for row, length in enumerate(lengths))
    return SliceItems(PIECE, made, tuple(b"" for _ in made))


def states_of(item: Item) -> dict[int, torch.Tensor]:
    """Of each boundary and row something else."""
    return {
        layer: torch.arange(len(item.tokens) * 2).reshape(-1, 2).float() + 100 * item.row + 1000 * layer
        for layer in (2, 5)
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "run"))


def make(
    store: Store, piece: SliceItems, work: Path, boundaries: tuple[int, ...] = (2, 5), job: StageJob = JOB
) -> None:
    assert HiddenStore(store, ALONE).make(job, piece, boundaries, states_of, work, lambda: False)


@pytest.mark.parametrize("lengths", [(3, 1, 8), (3, 0, 2), (0, 0), ()])
def test_every_row_comes_back(store: Store, tmp_path: Path, lengths: tuple[int, ...]) -> None:
    hidden, piece = HiddenStore(store, ALONE), items(*lengths)
    assert not hidden.has(JOB, piece, 2)
    make(store, piece, tmp_path)
    for boundary in (2, 5):
        stored = hidden.open(JOB, piece, boundary, tmp_path / "cache")
        for item in reversed(piece.items):
            if len(item.tokens):
                assert torch.equal(stored.of(item.row), states_of(item)[boundary])
        stored.close()
    assert {path.rpartition("/")[0] for path in store.files("hidden")} == {f"{FOLDER}/layer-2", f"{FOLDER}/layer-5"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "a copy is left behind"


def test_the_files_are_plain_safetensors_in_the_precision_of_the_run(store: Store, tmp_path: Path) -> None:
    def in_half(item: Item) -> dict[int, torch.Tensor]:
        return {layer: states.bfloat16() for layer, states in states_of(item).items()}

    HiddenStore(store, ALONE).make(JOB, items(3, 1), (2, 5), in_half, tmp_path, lambda: False)
    tensors = safetensors.torch.load(store.read_bytes(f"{FOLDER}/layer-2/part-0.safetensors"))
    assert tensors["hidden"].dtype == torch.bfloat16 and tensors["hidden"].shape == (4, 2)
    read = HiddenStore(store, ALONE).open(JOB, items(3, 1), 2, tmp_path / "cache").of(1)
    assert torch.equal(read, tensors["hidden"][3:])


def test_boundaries_come_and_go_each_by_itself(store: Store, tmp_path: Path) -> None:
    hidden, piece = HiddenStore(store, ALONE), items(3, 1)
    make(store, piece, tmp_path, (5,))
    before = {path: store.read_bytes(path) for path in store.files("hidden")}
    assert hidden.has(JOB, piece, 5) and not hidden.has(JOB, piece, 2)
    make(store, piece, tmp_path, (2,))
    assert hidden.has(JOB, piece, 5) and hidden.has(JOB, piece, 2)
    assert all(store.read_bytes(path) == data for path, data in before.items())
    store.delete(f"{FOLDER}/layer-5")
    assert hidden.has(JOB, piece, 2) and not hidden.has(JOB, piece, 5)


@pytest.mark.parametrize(
    "job",
    [
        dataclasses.replace(JOB, recipe_digest="other"),
        dataclasses.replace(JOB, base_digest="b" * 16 + "c" * 48),
    ],
)
def test_states_of_another_recipe_or_base_are_made_again(store: Store, tmp_path: Path, job: StageJob) -> None:
    hidden, piece = HiddenStore(store, ALONE), items(3)
    make(store, piece, tmp_path)
    assert not hidden.has(job, piece, 2)
    make(store, piece, tmp_path, job=job)
    assert hidden.has(job, piece, 2) and not hidden.has(JOB, piece, 2)


def test_states_of_another_file_of_the_slice_are_not_used(store: Store, tmp_path: Path) -> None:
    hidden, piece = HiddenStore(store, ALONE), items(3)
    make(store, piece, tmp_path)
    other = dataclasses.replace(piece, input=dataclasses.replace(PIECE, sha256="t" * 64))
    assert not hidden.has(JOB, other, 2)
    assert not hidden.has(JOB, items(4), 2)
    assert not hidden.has(JOB, piece, 3)


def test_a_stop_publishes_nothing(store: Store, tmp_path: Path) -> None:
    hidden, asked = HiddenStore(store, ALONE), []

    def at_the_third() -> bool:
        asked.append(True)
        return len(asked) == 3

    assert not hidden.make(JOB, items(3, 1), (2, 5), states_of, tmp_path, at_the_third)
    assert not store.files("hidden")


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip, "not hold what was stored at token 3"),
        (lambda data: data[:-1], "ends before"),
        (lambda data: b"", "header"),
    ],
)
def test_a_damaged_row_is_refused_and_the_others_are_not(
    store: Store, tmp_path: Path, damage: object, words: str
) -> None:
    assert callable(damage)
    hidden, piece = HiddenStore(store, ALONE), items(3, 1)
    make(store, piece, tmp_path)
    path = f"{FOLDER}/layer-5/part-0.safetensors"
    store.write_bytes(path, damage(store.read_bytes(path)))
    with pytest.raises(TrainError, match=f"layer-5/part-0.*{words}"):
        opened = hidden.open(JOB, piece, 5, tmp_path / "cache")
        assert torch.equal(opened.of(0), states_of(piece.items[0])[5])
        opened.of(1)
    assert torch.equal(hidden.open(JOB, piece, 2, tmp_path / "cache").of(1), states_of(piece.items[1])[2])


def test_a_vanished_folder_is_refused(store: Store, tmp_path: Path) -> None:
    hidden, piece = HiddenStore(store, ALONE), items(3)
    make(store, piece, tmp_path)
    store.delete(FOLDER)
    with pytest.raises(TrainError, match="vanished"):
        hidden.open(JOB, piece, 2, tmp_path / "cache")
