"""`s3t plan`: the sources of its numbers, and that it names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from s3t_ray.cli.main import app
from s3t_ray.cli.show import units
from s3t_ray.config.benchmarks import BENCHMARKS
from s3t_ray.config.load import load_config, ready_configs

SIZE = ("--records", "52002", "--tokens-per-record", "182")


def s3t_plan(*args: str) -> Result:
    return CliRunner().invoke(app, ["plan", *args], catch_exceptions=False, env={"COLUMNS": "140"})


def document(*args: str) -> dict[str, Any]:
    result = s3t_plan(*args, "--json")
    assert result.exit_code == 0, result.stderr
    plan: dict[str, Any] = json.loads(result.stdout)
    return plan


def test_the_view_has_the_numbers_of_the_document() -> None:
    plan, text = document("llama-2-13b", *SIZE), s3t_plan("llama-2-13b", *SIZE).stdout
    assert (plan["sequences"], plan["stages"]) == (20, 80)
    assert "5 shards of 4 slices, budget 4, cyclic orders" in text
    assert "52,002 records, 1,040 held out" in text
    assert "182 tokens per record (as given), 100% of them with a loss (assumed, the upper bound)" in text
    assert "→" in text
    assert "no two sequences have the same prefix" in text
    assert f"{plan['forecast']['closed_form_deletions']:.1f} deletions until every shard is dead" in text
    assert f"{plan['rank_memory']['total_bytes'] / 2**30:.1f} GiB per rank" in text


@pytest.mark.parametrize("ready", [name for name in ready_configs() if name != "demo"])
def test_every_full_config_is_planned_from_its_shape(ready: str) -> None:
    """Without weights or a network: stages, cost, memory and forecast of each."""
    config = load_config(ready)
    plan = document(ready, "--records", "50000", "--tokens-per-record", "197")
    assert config.model.shape is not None
    assert plan["sequences"] == config.shards * config.budget
    assert plan["stages"] == config.shards * config.budget * config.slices, "cyclic orders share no prefix"
    groups = plan["layer_groups"]
    assert groups[0]["last_layer"] == config.model.shape.layers - 1
    assert groups[-1]["first_layer"] == config.model.shape.layers - config.slices * config.lora.layers_per_group
    base = plan["rank_memory"]["base_bytes"]
    assert 0.45 * config.model.shape.parameters < base < 4.1 * config.model.shape.parameters
    assert plan["forecast"]["closed_form_deletions"] == pytest.approx(
        plan["forecast"]["simulated_deletions"], abs=5 * plan["forecast"]["simulated_standard_error"]
    )
    assert plan["compute"]["total_flops"] > plan["compute"]["one_plain_model_flops"] > 0
    assert "deletions until every shard is dead" in s3t_plan(ready, *SIZE).stdout


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_planned_by_one_override(name: str) -> None:
    ready, stages = ("vit-large", 5 * 6 * 6) if BENCHMARKS[name].columns else ("glue", 5 * 7 * 7)
    size = ("--records", "2500", "--tokens-per-record", "40")
    assert document(ready, *size, "--set", f"task.benchmark={name}")["stages"] == stages


def test_sisa_with_slices_is_planned_as_a_rival() -> None:
    """Every stage trains all layers that any stage of S3T trains."""
    size = ("--records", "50000", "--tokens-per-record", "197", "--set", "budget=1")
    plan, ours = document("vit-base", *size, "--set", "lora.isolation=none"), document("vit-base", *size)
    assert {(group["first_layer"], group["last_layer"]) for group in plan["layer_groups"]} == {(0, 11)}
    assert plan["storage"]["adapters_bytes"] > 5 * ours["storage"]["adapters_bytes"]
    assert plan["compute"]["total_flops"] > ours["compute"]["total_flops"]


def test_the_forecast_is_the_formula_and_the_simulation_agrees() -> None:
    forecast = document("llama-2-13b", *SIZE)["forecast"]
    first_slices = 5 * 4
    assert forecast["closed_form_deletions"] == pytest.approx(5 * 4 * sum(1 / k for k in range(1, first_slices + 1)))
    gap = abs(forecast["simulated_deletions"] - forecast["closed_form_deletions"])
    assert gap < 5 * forecast["simulated_standard_error"]


def test_sequences_that_share_a_beginning_share_stages() -> None:
    args = ("llama-2-13b", *SIZE, "--set", "budget=6", "--set", "order.kind=chains")
    plan = document(*args)
    assert plan["stages"] < plan["stages_unshared"] == 5 * 6 * 4
    assert f"{plan['stages']} instead of {plan['stages_unshared']}" in s3t_plan(*args).stdout


def test_tokens_are_cut_to_what_training_sees() -> None:
    plan = document("llama-2-13b", "--records", "1000", "--tokens-per-record", "9000", "--labelled-share", "0.5")
    assert (plan["data"]["tokens_per_record"], plan["data"]["labelled_share"]) == (512, 0.5)
    assert plan["data"]["labelled_share_from"] == "option"


def test_without_a_size_the_data_is_read_and_the_estimate_is_said(tmp_path: Path) -> None:
    rows = [{"id": n, "instruction": "Is it?", "input": "", "output": "yes " * 40} for n in range(300)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = ("llama-2-13b", "--set", f"data.path={data}", "--set", "data.id_field=id")
    plan = document(*args)["data"]
    assert (plan["records"], plan["records_from"], plan["tokens_from"]) == (300, "data", "characters")
    assert plan["sampled_records"] == 300 - plan["held_out_records"]
    assert "an estimate: 4 characters per token" in s3t_plan(*args).stdout


def test_an_option_wins_over_the_data(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"id": 1, "instruction": "Is it?", "input": "", "output": "yes"}) + "\n")
    args = ("llama-2-13b", "--set", f"data.path={data}", "--set", "data.id_field=id", "--set", "data.holdout=0")
    plan = document(*args, "--tokens-per-record", "100")["data"]
    assert (plan["records"], plan["records_from"]) == (1, "data")
    assert (plan["tokens_per_record"], plan["tokens_from"], plan["labelled_share_from"]) == (
        100,
        "option",
        "characters",
    )
    plan = document(*args, "--records", "5000")["data"]
    assert (plan["records"], plan["records_from"], plan["tokens_from"]) == (5000, "option", "characters")


def test_a_model_without_known_sizes_is_refused_before_the_data_is_read() -> None:
    result = s3t_plan("llama-2-13b", "--set", "model.shape=null", "--set", "data.path=/no/such/file.jsonl")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: model.shape is not set, and model.path = meta-llama/Llama-2-13b-hf")


def test_the_sizes_of_a_local_model_are_read(tmp_path: Path) -> None:
    sizes = {
        "model_type": "llama", "num_hidden_layers": 40, "hidden_size": 64, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    plan = document("llama-2-13b", *SIZE, "--set", "model.shape=null", "--set", f"model.path={tmp_path}")
    assert plan["layer_groups"][0] == {"depth": 1, "first_layer": 32, "last_layer": 39}
    assert plan["rank_memory"]["base_bytes"] < 10 * 2**20


def test_more_groups_than_layers_are_refused() -> None:
    result = s3t_plan("llama-2-13b", *SIZE, "--set", "lora.layers_per_group=11")
    assert result.exit_code == 2
    assert "44 layers" in result.stderr


def test_each_boundary_is_shown_with_its_choice() -> None:
    args = ("llama-2-13b", *SIZE, "--set", "engine.stored_boundaries=auto")
    slow = (*args, "--set", "storage.megabytes_per_second=500", "--set", "workers.gigaflops_per_rank=400000")
    plan = document(*slow)
    states = plan["hidden_states"]
    assert (states["chosen_by"], states["gigaflops_per_rank"], states["megabytes_per_second"]) == ("plan", 4e5, 500)
    choices = {line["depth"]: line for line in states["boundaries"]}
    assert [choices[depth]["layer"] for depth in (1, 2, 3, 4)] == [32, 24, 16, 8]
    assert {line["stored"] for line in states["boundaries"]} == {True, False}, "a mix"
    for line in states["boundaries"]:
        assert line["stored"] == (line["saved_seconds"] > 0)
    stored = sum(line["bytes"] for line in states["boundaries"] if line["stored"])
    assert plan["storage"]["hidden_states_bytes"] == pytest.approx(stored)
    text = s3t_plan(*slow).stdout
    assert "stored" in text and "computed from the tokens" in text and "chosen by the plan" in text
    every = document("llama-2-13b", *SIZE)["hidden_states"]
    assert every["chosen_by"] == "config" and all(line["stored"] for line in every["boundaries"])
    next_to_nothing = ("--set", "storage.megabytes_per_second=1e12", "--set", "workers.gigaflops_per_rank=1e15")
    assert "-0.0 s" not in s3t_plan("llama-2-13b", *SIZE, *next_to_nothing).stdout
    none = ("llama-2-13b", *SIZE, "--set", "engine.hidden_states=recompute")
    assert document(*none)["hidden_states"]["boundaries"] == []
    assert "hidden states entering" not in s3t_plan(*none).stdout


def test_given_gpus_are_planned_for() -> None:
    report = document("llama-2-13b", *SIZE, "--gpu", "4x24GiB")["gpus"]
    text = s3t_plan("llama-2-13b", *SIZE, "--gpu", "4x24GiB").stdout
    assert (report["count"], report["memory_bytes"], report["bfloat16_teraflops"]) == (4, 24 * 2**30, None)
    assert not report["fits"] and all(obstacle in text for obstacle in report["obstacles"])
    assert report["proposed"] and all(f"--set {setting}" in text for setting in report["proposed"])
    changed = [part for setting in report["proposed"] for part in ("--set", setting)]
    after = document("llama-2-13b", *SIZE, "--gpu", "4x24GiB", *changed)["gpus"]
    assert after["fits"] and after["proposed"] == []
    seconds = document("llama-2-13b", *SIZE, "--gpu", "8xH100")["gpus"]["least_seconds"]
    told = f"training takes at least {units.duration(seconds)}, at that peak rate"
    assert told in s3t_plan("llama-2-13b", *SIZE, "--gpu", "8xH100").stdout
    assert document("llama-2-13b", *SIZE)["gpus"] is None


def test_unknown_gpus_are_refused() -> None:
    result = s3t_plan("llama-2-13b", *SIZE, "--gpu", "8xabacus")
    assert result.exit_code == 2 and "8xH100" in result.stderr


def keys(value: object) -> object:
    """The names of a document, and the kinds of its values."""
    if isinstance(value, dict):
        return {name: keys(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [keys(value[0])] if value else []
    return type(value).__name__


def test_the_names_of_the_document_stay() -> None:
    """Scripts read them: a new one may come, none may go."""
    plan = document("llama-2-7b", *SIZE)
    golden = json.loads((Path(__file__).parent / "plan_document.json").read_text())
    found = keys(plan)
    assert isinstance(found, dict)
    assert {name: found.get(name) for name in golden} == golden
