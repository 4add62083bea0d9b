"""Accepted configs and their values, and refused ones with their messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.config.load import dump_config, load_config, parse_config, ready_configs
from s3t_ray.errors import ConfigError
from tests.unit.config.conftest import YAML


def refused(config_file: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(config_file, overrides)
    return caught.value


def test_defaults_and_overrides(config_file: Path) -> None:
    config = load_config(
        config_file, ["lora.rank=4", "order={kind: chains}", "optimizer.lr=2e-5", "data.id_field=null"]
    )
    assert (config.lora.rank, config.order.kind, config.optimizer.lr) == (4, "chains", 2e-5)
    assert config.data.id_field is None
    assert config.lora.alpha == 32.0


def test_an_exponent_without_a_dot_is_a_number(config_file: Path) -> None:
    config_file.write_text(YAML + "optimizer:\n  lr: 2e-5\n  eps: 1E-7\n")
    config = load_config(config_file)
    assert (config.optimizer.lr, config.optimizer.eps) == (2e-5, 1e-7)


def test_local_paths_become_absolute_and_hub_names_stay(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").touch()
    (tmp_path / "part-1.jsonl").touch()
    config = load_config(config_file, ["ledger.url=sqlite:///ledger.db", "keys.dir=secret"])
    assert config.storage.uri == str(tmp_path / "run")
    assert config.data.path == str(tmp_path / "records.jsonl")
    assert config.model.path == "some/base"
    assert config.ledger.url == f"sqlite:///{tmp_path}/ledger.db"
    assert config.keys.dir == str(tmp_path / "secret")
    assert load_config(config_file, ["data.path=part-*.jsonl"]).data.path == str(tmp_path / "part-*.jsonl")
    assert load_config(config_file, ["storage.uri=file:///somewhere/run"]).storage.uri == "/somewhere/run"


def test_remote_storage_stays_as_written(config_file: Path) -> None:
    config = load_config(
        config_file,
        ["storage.uri=s3://bucket/run", "keys.dir=/keys", "ledger.url='postgresql+psycopg://me:${PW}@host/db'"],
    )
    assert config.storage.uri == "s3://bucket/run"
    assert config.ledger.url == "postgresql+psycopg://me:${PW}@host/db"


def test_dump_reads_back_to_the_same_config(config_file: Path) -> None:
    overrides = ["order={kind: explicit, sequences: [[0, 1, 2], [2, 1, 0]]}", "lora.targets=[q_proj, v_proj]"]
    config = load_config(config_file, [*overrides, "optimizer.lr=1e-7", "data.path='häuser: #1.jsonl'"])
    assert parse_config(dump_config(config), "dump") == config


@pytest.mark.parametrize(
    ("override", "problem", "fix"),
    [
        ("lora.rnak=3", "lora.rnak = 3", "did you mean lora.rank?"),
        ("lora.lr=0.1", "lora.lr = 0.1", "did you mean optimizer.lr?"),
        ("optimiser.lr=0.1", "optimiser", "did you mean optimizer?"),
        ("zzz=1", "zzz = 1", "remove it; the top has budget"),
        ("shards=0", "greater than or equal to 1", "shards takes whole number, >= 1"),
        ("shards=true", "must be a whole number", "shards takes"),
        ("shards=2.5", "must be a whole number", "shards takes"),
        ('shards="2"', "must be a whole number", "shards takes"),
        ("name=7", "must be text (in quotes)", "Name of the run"),
        ("lora.use_rslora=1", "must be true or false", "rsLoRA"),
        ("lora.alpha=.inf", "finite", "lora.alpha takes"),
        ("lora.alpha=.nan", "finite", "lora.alpha takes"),
        ("lora.targets=some", "'all-linear' or a list", "lora.targets takes"),
        ("lora.targets=[q_proj, 1]", "lora.targets.1 = 1", "lora.targets.1 takes"),
        ("lora.targets=[]", "at least 1 item", "lora.targets takes"),
        ("task.prompt=alpca", "task.prompt", "did you mean alpaca?"),
        ("optimizer.betas=[0.9]", "optimizer.betas.1 is missing", "list of 2"),
        ("engine=", "engine = null", "indented, or remove it"),
        ("budget=7", "budget = 7: 3 slices have only 6 orders", "set budget to 1..6"),
        ("name=A b", "pattern", "lower-case"),
        ("model.shape={layers: 4}", "model.shape.hidden is missing", "add model.shape.hidden"),
        ("storage.uri=hdfs://x", "storage.uri = hdfs://x", "s3://"),
        ("storage.uri=s3://b/x", "ledger.url = null", "PostgreSQL"),
        ("keys.dir=run/keys", "is inside storage.uri", "outside"),
        ('storage.uri="a\\0b"', "the path 'a\\x00b' contains a null character", "remove it"),
        ("x", "not of the form", "lora.rank=8"),
        ("a..b=1", "not of the form", "lora.rank=8"),
        ("name.x=1", "name is text, not a section", "override name itself"),
        ("name={", "override of name line 1", "quotes and brackets"),
    ],
)
def test_refused_with_field_value_and_fix(config_file: Path, override: str, problem: str, fix: str) -> None:
    error = refused(config_file, override)
    assert problem in error.problem
    assert fix in error.fix


def test_an_empty_text_is_near_to_no_choice(config_file: Path) -> None:
    assert refused(config_file, "data.path=''").fix.startswith("data.path takes text")


def test_a_fault_inside_a_list_is_told_once(config_file: Path) -> None:
    assert "faults" not in refused(config_file, "lora.targets=[q_proj, 1]").problem


def test_every_fault_is_told_at_once_with_its_line(config_file: Path) -> None:
    config_file.write_text(
        YAML.replace("slices: 3", "slices: three").replace("budget: 2\n", "") + "engine:\n  rank: 1\n"
    )
    error = refused(config_file)
    assert "3 errors" in error.problem
    for words in ('slices = "three" (line 3)', "engine.rank = 1 (line 13)", "budget is missing"):
        assert words in error.problem
    assert "did you mean engine.ranks?" in error.fix


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "holds a list"),
        ("name: [\n", "line 2"),
        ("name: x\n\tshards: 2\n", "line 2"),
        ("name: x\nshards: 2\nname: y\n", "name is given twice, in lines 1 and 3"),
        ("model:\n  path: x\n  path: y\n", "model.path is given twice, in lines 2 and 3"),
        ("name: &n x\ndata: {path: *n}\n", "alias"),
        ("name: !!python/object/apply:os.getcwd []\n", "line 1"),
        ("name: x\n---\nname: y\n", "single document"),
        ("name: 2024-13-45\n", "not valid YAML"),
        ("name: x\ndata: " + "[" * 200_000, "line 2: nested more than 100 levels deep"),
        ("\n".join(" " * level + "a:" for level in range(200)), "nested more than 100 levels deep"),
    ],
)
def test_yaml_that_hides_or_breaks_something_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "here.yaml")
    assert "here.yaml" in caught.value.problem
    assert words in caught.value.problem


def test_a_missing_file_names_the_nearest_ready_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean demo"):
        load_config("demmo")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "binary.yaml")


def test_a_password_in_clear_is_refused_and_never_shown(config_file: Path) -> None:
    for url in ("postgresql+psycopg://me:hunter2@host/db", "postgresql+psycopg://host/db?password=hunter2"):
        error = refused(config_file, f"ledger.url={url}")
        assert "password" in error.problem
        assert "hunter2" not in str(error)
    assert "hunter2" not in str(refused(config_file, "ledger.url=[hunter2]"))
    assert "hunter2" not in str(refused(config_file, "ledger.url=mysql://me:hunter2@host/db"))


@pytest.mark.parametrize("name", ready_configs())
def test_every_ready_config_loads_and_reads_back(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    assert config.model.shape is not None
    assert parse_config(dump_config(config), name) == config


def test_the_ready_configs_are_those_promised() -> None:
    assert set(ready_configs()) >= {"demo", "glue", "llama-2-13b", "llama-2-7b", "llama-3-8b", "vit-base", "vit-large"}
    big = load_config("llama-2-13b")
    assert (big.lora.rank, big.lora.alpha, big.lora.layers_per_group, big.slices, big.optimizer.epochs) == (
        32,
        64,
        8,
        4,
        3,
    )
    assert round(big.model.shape.parameters / 1e9, 1) == 13.0  # type: ignore[union-attr]
