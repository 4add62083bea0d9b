"""`s3t plan` checks a base model as `s3t train` does, and shows how the data is distributed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from s3t_ray.cli.main import app
from tests.tiny import tiny_llama

CONFIG = """\
name: test
shards: 2
slices: 3
budget: 1
model: {{path: {folder}/base}}
data: {{path: {folder}/data.jsonl, subject_field: who, partition_by: subject, partition_key: seed}}
lora: {{layers_per_group: 1}}
storage: {{uri: {folder}/run}}
"""


def prepared(folder: Path, people: int = 10, records: int = 20) -> Path:
    tiny_llama(folder / "base", layers=3)
    rows = [
        {"id": f"{person}-{at}", "who": f"p{person}", "question": "Q", "answer": f"A{at}"}
        for person in range(people)
        for at in range(records)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.yaml").write_text(CONFIG.format(folder=folder))
    return folder / "run.yaml"


def test_an_uneven_partition_is_said_with_what_to_do(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    shown = CliRunner().invoke(app, ["plan", str(config), "--set", "seed=3"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    report = json.loads(CliRunner().invoke(app, ["plan", str(config), "--set", "seed=3", "--json"]).stdout)
    found = report["data"]["balance"]
    assert found["smallest_shard"] + found["largest_shard"] == 200
    assert any("taken as instruction: question, output: answer" in note for note in report["data"]["notes"])
    if found["unevenness"] >= 1.25:
        assert any("would make the largest shard" in note for note in report["data"]["notes"])
    assert f"shards of {found['smallest_shard']} to {found['largest_shard']} records" in shown.stdout
    seeds = [
        json.loads(CliRunner().invoke(app, ["plan", str(config), "--set", f"seed={seed}", "--json"]).stdout)
        for seed in range(4)
    ]
    assert len({seed["data"]["balance"]["largest_shard"] for seed in seeds}) > 1


def test_a_base_that_training_refuses_is_refused_by_the_plan(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    weights = load_file(tmp_path / "base/model.safetensors")
    save_file({f"module.{name}": each for name, each in weights.items()}, tmp_path / "base/model.safetensors")
    for more in ((), ("--records", "100", "--tokens-per-record", "50")):
        refused = CliRunner().invoke(app, ["plan", str(config), *more])
        assert refused.exit_code == 2
        assert "30 missing: lm_head.weight" in refused.output and "DistributedDataParallel" in refused.output


def test_a_plan_reads_the_held_out_file_and_finds_ids_that_stand_twice(tmp_path: Path) -> None:
    """`s3t train` refuses both, and the plan says what it would say."""
    config = prepared(tmp_path, people=10, records=3)
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({"id": "h0", "who": "p9", "question": "Q", "answer": "A"}) + "\n")
    apart = ("--set", f"data.holdout_path={held}", "--set", "seed=3")
    report = json.loads(CliRunner().invoke(app, ["plan", str(config), *apart, "--json"]).stdout)
    assert (report["data"]["records"], report["data"]["held_out_records"]) == (31, 1)
    held.write_text(json.dumps({"id": "h0", "who": "p9", "question": "Q"}) + "\n")
    refused = CliRunner().invoke(app, ["plan", str(config), *apart])
    assert refused.exit_code == 3 and "held.jsonl:1: " in refused.output, refused.output
    held.write_text(json.dumps({"id": "0-1", "who": "p9", "question": "Q", "answer": "A"}) + "\n")
    refused = CliRunner().invoke(app, ["plan", str(config), *apart])
    assert refused.exit_code == 3 and "error: id '0-1' is in more than one record" in refused.output
    assert re.search(r"data\.jsonl:2 and .*held\.jsonl:1; nothing was kept", refused.output), refused.output
