"""Where storage, ledger and keys of a run are."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.config.load import load_config, parse_config
from s3t_ray.config.location import locate
from s3t_ray.errors import ConfigError
from tests.unit.config.conftest import YAML

SERVER = "ledger.url='postgresql+psycopg://me:${LEDGER_PASSWORD}@${LEDGER_HOST}/db'"


def test_a_local_run_keeps_its_ledger_inside_and_its_keys_beside(config_file: Path, tmp_path: Path) -> None:
    place = locate(load_config(config_file))
    assert place.storage_uri == str(tmp_path / "run")
    assert place.ledger_url == f"sqlite:///{tmp_path}/run/ledger.db"
    assert place.keys_dir == tmp_path / "run.keys"
    assert locate(parse_config(YAML, "written, not loaded")) == place


def test_the_environment_is_expanded_and_a_password_may_hold_anything(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_PASSWORD", "p@ss/w:rd")
    monkeypatch.setenv("LEDGER_HOST", "db:5432")
    place = locate(load_config(config_file, [SERVER]))
    assert place.ledger_url == "postgresql+psycopg://me:p%40ss%2Fw%3Ard@db:5432/db"
    assert "p%40ss" not in repr(place)


def test_a_variable_that_is_not_set_is_named(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEDGER_PASSWORD", raising=False)
    monkeypatch.setenv("LEDGER_HOST", "db")
    with pytest.raises(ConfigError, match="LEDGER_PASSWORD"):
        locate(load_config(config_file, [SERVER]))


def test_a_whole_url_can_come_from_the_environment(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_URL", "postgresql+psycopg://me:pw@host/db")
    assert (
        locate(load_config(config_file, ["ledger.url=${LEDGER_URL}"])).ledger_url
        == "postgresql+psycopg://me:pw@host/db"
    )


def test_keys_inside_the_storage_are_refused_through_a_link_too(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "beside").symlink_to(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"is inside storage\.uri"):
        load_config(config_file, ["keys.dir=beside/keys"])
    with pytest.raises(ConfigError, match=r"is inside storage\.uri"):
        load_config(config_file, ["keys.dir=run"])


def test_remote_storage(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_PASSWORD", "x")
    monkeypatch.setenv("LEDGER_HOST", "db")
    place = locate(load_config(config_file, ["storage.uri=s3://b/run", "keys.dir=/secret", SERVER]))
    assert (place.storage_uri, place.keys_dir) == ("s3://b/run", Path("/secret"))
