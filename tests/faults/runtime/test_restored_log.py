"""The log of a restored run: signed by the current key, and published again from the time of the backup."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.audit.audit import audit
from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger.keys import Keys
from s3t_ray.proof.handed_out import check_handed_out
from s3t_ray.proof.key_entry import CarriedKeyEntry, KeyEntry
from s3t_ray.proof.run_log import parse_entry, verify_chain
from s3t_ray.proof.signed_entry import ChainHead, signed
from s3t_ray.run import deletion
from s3t_ray.run.integrity import restore as restoring
from s3t_ray.run.integrity.restore import restore
from s3t_ray.run.log.issued_certificates import entries_of, key_changes_of
from s3t_ray.run.log.key_change import change_key
from s3t_ray.run.log.published_log import publish, published
from s3t_ray.run.run import Run
from s3t_ray.store import layout
from s3t_ray.tlog.log_head import LogHead
from tests.fakes import Cluster, adapters, small_config
from tests.faults.runtime.test_backups import put_back

ENTRIES = "?" * 9 + ".json"
"""Entries in a log's copy, by number; files of names begin with a deletion's id."""
Lost = tuple[list[str], list[bytes]]
"""Requests that the backup lacks, and the public keys (PEM) of the run, oldest first."""


def live_on(folder: Path, changes: int, settle: bool = True) -> tuple[Lost, dict[tuple[int, tuple[int, ...]], bytes]]:
    """A run, a backup of it and its keys in `copy`, then a deletion, `changes` of key, and another deletion."""
    cluster = Cluster(small_config(folder, ledger={"log_copy": str(folder / "elsewhere")}))
    run = cluster.run
    if settle:
        cluster.settle()
    publish(run)
    run.ledger._database.forget_overwritten()
    for name in ("run", "run.keys"):
        shutil.copytree(folder / name, folder / "copy" / name)
    pems = [run.keys.public_key_pem]
    requests = [deletion.accept(run, ["r3"], []).request_id]
    for _ in range(changes):
        change_key(run, "rotation")
        pems.append(run.keys.public_key_pem)
    requests.append(deletion.accept(run, ["r9"], []).request_id)
    if settle:
        cluster.settle()
    publish(run)
    wanted = adapters(run)
    run.close()
    return (requests, pems), wanted


def bring_back(folder: Path, *, storage: bool = True, keys: bool = False) -> None:
    """The run as the backup has it; `storage`: not its ledger alone; `keys`: theirs of then, too."""
    if keys:
        shutil.rmtree(folder / "run.keys")
        shutil.copytree(folder / "copy" / "run.keys", folder / "run.keys")
    if storage:
        put_back(folder / "copy" / "run", folder / "run", ledger=True)
        return
    for path in (folder / "run").glob("ledger.db*"):
        path.unlink()
    shutil.copy(folder / "copy" / "run" / "ledger.db", folder / "run" / "ledger.db")


@pytest.mark.parametrize("changes", [1, 2])
@pytest.mark.parametrize("storage", [True, False])
def test_the_key_that_signs_now_takes_a_restored_log_over(folder: Path, changes: int, storage: bool) -> None:
    (requests, pems), wanted = live_on(folder, changes)
    bring_back(folder, storage=storage)
    with pytest.raises(LedgerError, match="the ledger is older than its copy"):
        Run.open(folder / "run")
    told: list[str] = []
    with Run.open_unchecked(folder / "run") as taken_back:
        assert restore(taken_back, told.append).deletions == tuple(requests)
        assert restore(taken_back, told.append).lost_entries == 0
    assert len(told) == 1 and "signs it again" in told[0]
    again = Cluster(small_config(folder, ledger={"log_copy": str(folder / "elsewhere")}))
    again.settle()
    run = again.run
    publish(run)
    assert adapters(run) == wanted
    texts = [row.text for row in run.ledger.log()]
    carried = [entry for entry in map(parse_entry, texts) if isinstance(entry, CarriedKeyEntry)]
    assert [(each.public_key, len(each.facts.changes)) for each in carried] == [(run.keys.public_key.hex(), changes)]
    for pem in (pems[0], pems[-1]):
        verify_chain(texts, pem, run.ledger.log_head())
        assert audit(run, trusted_key=pem).problems == ()
        for request in requests:
            check_handed_out([*entries_of(run, request), *key_changes_of(run)], pem)
    change_key(run, "rotation")
    deletion.accept(run, ["r7"], [])
    publish(run)
    assert audit(run, trusted_key=pems[0]).problems == ()


def test_a_key_that_came_back_with_a_backup_is_changed_again(folder: Path) -> None:
    (requests, pems), _ = live_on(folder, 1)
    bring_back(folder, keys=True)
    told: list[str] = []
    with Run.open_unchecked(folder / "run") as taken_back:
        assert restore(taken_back, told.append).deletions == tuple(requests)
    assert "the key from the backup had been changed" in told[0]
    with Run.open(folder / "run") as run:
        assert run.keys.public_key_pem not in pems
        receipts = [entry for entry in map(parse_entry, (row.text for row in run.ledger.log())) if entry.facts.sequence]
        assert {entry.public_key for entry in receipts[-2:]} == {run.keys.public_key.hex()}
        assert audit(run, trusted_key=pems[0]).problems == ()


def test_a_ledger_older_than_the_published_log_is_not_served(folder: Path) -> None:
    """The keys have forgotten, and there is no copy of the log: the checkpoint in the storage knows."""
    cluster = Cluster(small_config(folder))
    cluster.settle()
    cluster.run.ledger._database.forget_overwritten()
    shutil.copytree(folder / "run", folder / "copy" / "run")
    deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    publish(cluster.run)
    length = cluster.run.ledger.log_length()
    cluster.run.close()
    bring_back(folder, storage=False)
    for memory in (folder / "run.keys").glob("*.log.json"):
        memory.unlink()
    said = f"was published with {length} entries .*, and the ledger has 1: the ledger is older"
    for opening in (lambda: Run.open(folder / "run"), lambda: Cluster(small_config(folder))):
        with pytest.raises(LedgerError, match=said) as refused:
            opening()
        assert "folder log out of the storage" in refused.value.fix
    checkpoint = folder / "run" / "log" / "checkpoint"
    genuine = checkpoint.read_text()
    checkpoint.write_text(genuine.replace("\u2014 ", "\u2014 x", 1))  # nobody with the key signed it
    Run.open(folder / "run").close()
    checkpoint.write_text(genuine)
    shutil.rmtree(folder / "run" / "log")  # as the fix says
    with Run.open(folder / "run") as run:
        assert publish(run) is not None


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("cut_at", range(1, 9))
def test_a_killed_restore_over_a_change_of_key_continues(
    folder: Path, cut_at: int, keys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the change of key, each deletion, the log's withdrawal, and the making of its copy."""
    (requests, pems), _ = live_on(folder, 1, settle=False)
    bring_back(folder, storage=False, keys=keys)
    steps = 0

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 2
            if steps - 1 == cut_at:
                raise KeyboardInterrupt
            done = do(*given, **named)
            if steps == cut_at:
                raise KeyboardInterrupt
            return done

        return step

    with monkeypatch.context() as patch, Run.open_unchecked(folder / "run") as taken_back:
        for name in ("follow_key", "withdraw"):
            patch.setattr(restoring, name, counted(getattr(restoring, name)))
        patch.setattr(taken_back.ledger, "accept_deletion", counted(taken_back.ledger.accept_deletion))
        with pytest.raises(KeyboardInterrupt):
            restore(taken_back, lambda line: None)
    with pytest.raises(LedgerError):
        Run.open(folder / "run")
    with Run.open_unchecked(folder / "run") as taken_back:
        assert restore(taken_back, lambda line: None).deletions == tuple(requests)
    with Run.open(folder / "run") as run:
        texts = [row.text for row in run.ledger.log()]
        verify_chain(texts, pems[0], run.ledger.log_head())
        kinds = [row.kind for row in run.ledger.log()]
        assert kinds == ["run", "key", "receipt", "receipt"]
        note = published(run)
        assert note is not None and LogHead.parse(note.text).size == len(texts)
        assert run.store.files(layout.LOG) and not any(path.endswith(".until") for path in os.listdir(folder))


def test_a_log_cannot_be_taken_over_without_the_consent_of_its_key(folder: Path) -> None:
    live_on(folder, 2)
    (copied,) = (folder / "elsewhere").iterdir()
    texts = [path.read_text() for path in sorted(copied.glob(ENTRIES))]
    first, second = (entry for entry in map(parse_entry, texts) if isinstance(entry, KeyEntry))
    stranger = Keys(b"x" * 32)
    begun = parse_entry(texts[0])
    with Run.open(folder / "run") as run:
        mine = run.keys
    pem = mine.public_key_pem

    def carried(signer: Keys, changes: tuple[KeyEntry, ...], next_key: str | None = None) -> str:
        facts = {
            **first.facts.model_dump(include={"at", "run", "run_id"}),
            "sequence": 2,
            "previous": begun.hash,
            "next_key": next_key or signer.public_key.hex(),
            "changes": tuple(each.to_json() for each in changes),
            "lost": ChainHead(sequence=9, hash="0" * 64),
        }
        return signed(CarriedKeyEntry, signer, facts=facts).to_json()

    verify_chain([texts[0], carried(mine, (first, second))], pem)
    agreed = first.facts.model_copy(update={"next_key": stranger.public_key.hex()})
    forged = first.model_copy(update={"facts": agreed})
    other_run = second.model_copy(update={"facts": second.facts.model_copy(update={"run_id": "0" * 32})})
    for text in (
        carried(stranger, (first, second)),  # whoever has neither key
        carried(stranger, (forged,)),  # by a change that nobody signed
        carried(mine, (second,)),  # from a key that did not sign before
        carried(mine, (second, first)),
        carried(mine, (first, other_run)),
        carried(stranger, (first, second), mine.public_key.hex()),
    ):
        with pytest.raises(VerificationFailed):
            verify_chain([texts[0], text], pem)
