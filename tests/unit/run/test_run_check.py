"""A run is one thing: a config with another ledger, name or keys is refused before Ray, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.errors import ConfigError, LedgerError
from s3t_ray.run.run import Run
from s3t_ray.run.run_check import check_begun_run
from tests.fakes import Cluster, fake_base, small_config, write_records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{at}", None) for at in range(12)])
    cluster = Cluster(small_config(tmp_path))
    cluster.settle()
    cluster.run.close()
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file of the run, its keys and ledgers beside them; without what SQLite keeps beside a ledger."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".db" not in path.name]
    return {path: path.read_bytes() for path in files} | dict.fromkeys(folder.rglob("*.db"), b"")


WRONG: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"name": "other"}, ConfigError, "is named 'test'"),
    ({"keys": {"dir": "other.keys"}}, LedgerError, "the run's keys are lost"),
    ({"ledger": {"url": "sqlite:///other.db"}}, LedgerError, "its ledger is not where ledger.url says"),
    ({"budget": 1}, ConfigError, "6 of 12 trained stages"),
    ({"optimizer": {"lr": 0.5}}, ConfigError, "changed: optimizer"),
]


def test_what_does_not_belong_to_the_run_is_refused_and_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = contents(folder)
    for changes, kind, words in WRONG:
        for refuses in (check_begun_run, Run.create):
            with pytest.raises(kind, match=words):
                refuses(small_config(folder, **changes))
            assert contents(folder) == before, changes
    Run.create(small_config(folder)).close()


def test_a_replaced_base_is_refused_before_ray(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    digest = check_begun_run(small_config(folder))
    with Run.create(small_config(folder)) as run:
        assert digest == run.row.base_digest
    weights = next((folder / "base").glob("*.safetensors"))
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    before = contents(folder)
    with pytest.raises(ConfigError, match="is not the one that run 'test' was trained on"):
        check_begun_run(small_config(folder))
    assert contents(folder) == before
    weights.write_bytes(kept)
    assert check_begun_run(small_config(folder)) == digest


def test_a_lost_ledger_is_not_begun_anew(folder: Path) -> None:
    (folder / "run" / "ledger.db").rename(folder / "elsewhere.db")
    for path in (folder / "run").glob("ledger.db*"):
        path.rename(folder / path.name.replace("ledger", "elsewhere"))
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"is the storage of run 'test' .* there is no ledger at"):
            Run.create(small_config(folder))
    assert not list((folder / "run").glob("ledger.db*"))


def test_a_new_run_passes_and_is_not_begun(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    before = contents(tmp_path)
    check_begun_run(small_config(tmp_path))
    assert contents(tmp_path) == before and not (tmp_path / "run").exists()


def test_a_changed_recipe_is_seen_before_the_base_is_read(folder: Path) -> None:
    path = folder / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ConfigError, match="changed: optimizer"):
        check_begun_run(small_config(folder, optimizer={"lr": 0.5}))
