"""A rank that slept until its shard was purged and the other ranks were dead: what it writes then, it erases itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from s3t_ray.errors import TrainError
from s3t_ray.store.store import Store
from s3t_ray.train.checkpoint import save_checkpoint
from s3t_ray.train.fence import raise_fence
from s3t_ray.train.hidden_states.hidden import HiddenStore
from s3t_ray.train.ranks import Group
from tests.unit.train.test_hidden import JOB, items, states_of

OTHER_DIGEST = "e" * 64


@dataclass(frozen=True)
class Widowed(Group):
    """One of two ranks. Its peer lives until the first writes are due, and is dead at the barrier behind them."""

    def sum(self, value: float) -> float:
        return value

    def gather(self, data: bytes) -> list[bytes]:
        raise TrainError("connection closed by peer", "train again")


def checkpoint(store: Store, folder: Path, group: Group) -> None:
    save_checkpoint(store, JOB, [1.0], {"moments": torch.ones(3)}, group)


def hidden_states(store: Store, folder: Path, group: Group) -> None:
    HiddenStore(store, group).make(JOB, items(3, 1, 8), (2, 5), states_of, folder, lambda: False)


@pytest.mark.parametrize("write", [checkpoint, hidden_states])
@pytest.mark.parametrize("rank", [0, 1])
def test_it_erases_what_it_wrote_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Store, Path, Group], None], rank: int
) -> None:
    store, group = Store.open(str(tmp_path / "run")), Widowed(rank, 2, torch.device("cpu"))

    def sleep(name: str) -> None:
        real = getattr(type(store), name)

        def late(self: Store, source: object, target: object) -> None:
            monkeypatch.undo()
            raise_fence(store, JOB.shard, {JOB.slices[0].slice: OTHER_DIGEST})
            real(self, source, target)

        monkeypatch.setattr(type(store), name, late)

    sleep("write_bytes")
    sleep("upload")
    with pytest.raises(TrainError, match="closed by peer"):
        write(store, tmp_path, group)
    assert store.files("fences") and not store.files("checkpoints") and not store.files("hidden")


@pytest.mark.parametrize("write", [checkpoint, hidden_states])
def test_it_leaves_what_no_deletion_struck(tmp_path: Path, write: Callable[[Store, Path, Group], None]) -> None:
    store = Store.open(str(tmp_path / "run"))
    with pytest.raises(TrainError, match="closed by peer"):
        write(store, tmp_path, Widowed(1, 2, torch.device("cpu")))
    assert store.files("checkpoints") or store.files("hidden"), "the next attempt, or a purge, finds it"
