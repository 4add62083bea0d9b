"""The commands that look at a run, against a fake runtime: what they print where, and their exit codes.

The runtime is replaced, so nothing here trains or deletes; tests/e2e takes the same commands down the
real path.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from s3t_ray.run.reports import Evaluation, Export, Generation, ReplayedStage, Status, Verdict, Verification
from tests.fakes.command_line import (
    EVALUATION,
    TRAINED,
    FakeRun,
    FakeRuntime,
    deletion,
    raises,
    returns,
    running,
    s3t,
    status,
)

# status


def test_status_shows_the_run(runtime: FakeRuntime) -> None:
    runtime.answer("run.status", status=returns(status(settled=True)))
    result = s3t("status", "runs/a")
    assert result.exit_code == 0
    assert "0→1→2  ███ 3" in result.stdout
    assert result.stderr == ""


def test_status_as_json(runtime: FakeRuntime) -> None:
    seen = status(deletions=(deletion(),), running=(running(),))
    runtime.answer("run.status", status=returns(seen))
    assert Status.model_validate_json(s3t("status", "runs/a", "--json").stdout) == seen


def test_watching_ends_when_the_run_is_settled(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3t_ray.cli.read_commands.SECONDS_BETWEEN_LOOKS", 0)
    looks = iter([status(running=(running(),)), status(), status(settled=True)])
    runtime.answer("run.status", status=lambda run: next(looks))
    result = s3t("status", "runs/a", "--watch", "--json")
    assert json.loads(result.stdout)["settled"] is True
    assert "training" in result.stderr
    assert next(looks, None) is None


def test_ctrl_c_of_a_watch_promises_nothing(runtime: FakeRuntime) -> None:
    runtime.answer("run.status", status=raises(KeyboardInterrupt()))
    result = s3t("status", "runs/a", "--watch")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


# eval, generate, export, verify


def test_what_libraries_print_never_mixes_with_the_document(runtime: FakeRuntime) -> None:
    def evaluate(run: FakeRun, *, limit: int | None) -> Evaluation:
        print("a library greets")
        return EVALUATION

    def train(config: Any, **options: Any) -> Any:
        print("a library greets")
        return TRAINED

    runtime.answer("ensemble.in_process", evaluate=evaluate)
    runtime.answer("runtime.train", train=train)
    for args in (("eval", "runs/a", "--json"), ("train", "llama-2-13b", "--json")):
        result = s3t(*args)
        assert json.loads(result.stdout)
        assert "a library greets" in result.stderr


def test_eval_shows_each_depth(runtime: FakeRuntime) -> None:
    def evaluate(run: FakeRun, *, limit: int | None) -> Evaluation:
        assert limit == 500
        return EVALUATION

    runtime.answer("ensemble.in_process", evaluate=evaluate)
    text = s3t("eval", "runs/a", "--limit", "500").stdout
    assert "base model" in text
    assert "1.6000" in text
    assert "87.5%" in text
    assert json.loads(s3t("eval", "runs/a", "--limit", "500", "--json").stdout)["tokens"] == 15000


def test_generate_prints_the_text_alone_on_stdout(runtime: FakeRuntime) -> None:
    asked: list[tuple[Any, ...]] = []

    def generate(run: FakeRun, prompt: str, *, max_new_tokens: int, temperature: float, seed: int) -> Generation:
        asked.append((prompt, max_new_tokens, temperature, seed))
        return Generation(text="[red] Paris.\n", depths=(3, 0), version=7, seconds=0.5)

    runtime.answer("ensemble.in_process", generate=generate)
    result = s3t(
        "generate", "runs/a", "Capital of France?", "--max-new-tokens", "5", "--temperature", "0.5", "--seed", "3"
    )
    assert result.stdout == "[red] Paris.\n\n"
    assert "depths 3, 0; version 7; 0.5 s" in result.stderr
    s3t("generate", "runs/a", "-", input="From stdin")
    assert asked == [("Capital of France?", 5, 0.5, 3), ("From stdin", 128, 0.0, 0)]


def test_export_names_the_folder_and_the_digest(runtime: FakeRuntime) -> None:
    def export(run: FakeRun, shard: int, out: Path) -> Export:
        return Export(shard=shard, depth=2, folder=str(out), stages=("a", "b"), adapter_sha256="c" * 64)

    runtime.answer("ensemble.peft_export", export=export)
    result = s3t("export", "runs/a", "--shard", "1", "out")
    assert "shard 1 at depth 2 (2 stages) written to out" in result.stdout
    assert "c" * 64 in result.stdout


def test_an_export_is_one_shard_or_all_merged(runtime: FakeRuntime) -> None:
    assert s3t("export", "runs/a", "--shard", "1", "--merged", "out").exit_code == 2


@pytest.mark.parametrize("told", [(), ("--merged",)])
def test_an_export_merges_all_shards_unless_told(runtime: FakeRuntime, told: tuple[str, ...]) -> None:
    asked: list[int | None] = []

    def export(run: FakeRun, shard: int | None, out: Path) -> Export:
        asked.append(shard)
        return Export(shard=shard, depth=2, folder=str(out), stages=("a", "b"), adapter_sha256="c" * 64)

    runtime.answer("ensemble.peft_export", export=export)
    assert "all shards merged" in s3t("export", "runs/a", *told, "out").stdout
    assert s3t("export", "runs/a", "--shard", "1", "out").exit_code == 0
    assert asked == [None, 1]


@pytest.mark.parametrize(
    ("problems", "verdict", "exit_code", "result", "words"),
    [
        ((), Verdict.EQUAL, 0, "verified", "verified"),
        ((), Verdict.NOT_PROVED, 10, "not_proved", "not proved"),
        ((), Verdict.DIFFERS, 8, "failed", "differs"),
        (("slice 2 of shard 0: digest differs",), Verdict.EQUAL, 8, "failed", "problem: slice 2 of shard 0"),
        (("slice 2 of shard 0: digest differs",), Verdict.NOT_PROVED, 8, "failed", "not verified"),
    ],
)
def test_verify_fails_when_a_proof_does_not_hold(
    runtime: FakeRuntime, problems: tuple[str, ...], verdict: Verdict, exit_code: int, result: str, words: str
) -> None:
    replayed = ReplayedStage(
        stage_id="a" * 64,
        shard=0,
        slices=(0, 1),
        verdict=verdict,
        largest_difference=0.5,
        mismatches=("torch 2.13.0, here 2.14.0",) if verdict is Verdict.NOT_PROVED else (),
    )

    def verify(run: FakeRun, *, replay: int, address: str | None, watch: Callable[[str], None]) -> Verification:
        watch("replaying stage 1 of 1")
        return Verification(records=10, stages=4, problems=problems, replayed=(replayed,) * replay)

    runtime.answer("audit.verify", verify=verify)
    shown = s3t("verify", "runs/a", "--replay", "1")
    assert shown.exit_code == exit_code
    assert words in shown.stdout
    assert ("verified" in shown.stdout.replace("not verified", "")) == (result == "verified")
    assert "replaying stage 1 of 1" in shown.stderr
    assert ("error: " in shown.stderr) == (exit_code != 0)
    assert ("torch 2.13.0, here 2.14.0" in shown.stderr) == (exit_code == 10)
    document = s3t("verify", "runs/a", "--replay", "1", "--json")
    assert document.exit_code == exit_code
    report = json.loads(document.stdout)
    assert (report["problems"], report["result"], report["replayed"][0]["verdict"]) == (
        list(problems),
        result,
        verdict.value,
    )


# demo


def test_the_demo_tells_its_story_on_stdout_and_gives_the_status_as_json(runtime: FakeRuntime) -> None:
    def run_demo(folder: Path, console: Console, progress: Any) -> None:
        print("a library greets")
        console.print(f"[b]1. Training[/b] in {folder}")

    runtime.answer("demo.story", run_demo=run_demo)
    runtime.answer("run.status", status=returns(status(settled=True)))
    assert "1. Training in demo-run\n" in s3t("demo").stdout
    result = s3t("demo", "--folder", "elsewhere", "--json")
    assert json.loads(result.stdout)["settled"] is True
    assert "1. Training in elsewhere\n" in result.stderr


# configs


def test_configs_lists_every_ready_config_with_what_it_is() -> None:
    from s3t_ray.config.load import ready_configs

    text = s3t("configs").stdout
    listed = json.loads(s3t("configs", "--json").stdout)
    assert [row["name"] for row in listed] == list(ready_configs())
    for row in listed:
        assert row["name"] in text
        assert len(row["about"]) > 20


def test_configs_show_prints_a_config_that_loads(tmp_path: Path) -> None:
    from s3t_ray.config.load import load_config

    mine = tmp_path / "mine.yaml"
    mine.write_text(s3t("configs", "show", "llama-2-13b").stdout)
    assert load_config(mine) == load_config("llama-2-13b")
    assert mine.read_text().startswith("#")


def test_a_misspelt_ready_config_is_guessed() -> None:
    result = s3t("configs", "show", "lama-2-13b")
    assert result.exit_code == 2
    assert "did you mean llama-2-13b?" in result.stderr
