"""The commands against a fake runtime: what they print where, and their exit codes.

The runtime is replaced, so nothing here trains or deletes; tests/e2e takes the same commands down the
real path.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from s3t_ray.cli.main import app
from s3t_ray.errors import (
    ClusterError,
    ConfigError,
    DataError,
    LedgerError,
    S3TError,
    StoreError,
    TrainError,
    UnknownRecords,
)
from s3t_ray.runtime.reports import (
    DeletionReceipt,
    Evaluation,
    Export,
    Generation,
    Impact,
    ReplayedStage,
    Status,
    Verification,
)

from .fakes import EVALUATION, IMPACT, RECEIPT, TRAINED, FakeRun, FakeRuntime, deletion, running, status


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    monkeypatch.setenv("COLUMNS", "140")
    return FakeRuntime(monkeypatch)


def s3t(*args: str, input: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(app, list(args), input=input, catch_exceptions=False)
    assert "Traceback" not in result.stderr
    return result


def returns(value: object) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*args: object, **kwargs: object) -> None:
        raise error

    return function


# train


def test_train_reports_on_stdout_and_progress_on_stderr(runtime: FakeRuntime) -> None:
    def train(config: Any, *, address: str | None, watch: Callable[[Status], None], note: Callable[[str], None]) -> Any:
        assert (config.name, config.budget, address) == ("llama-2-13b", 2, "ray://head:10001")
        note("reading data: 12,000 records")
        watch(status(running=(running(),)))
        return TRAINED

    runtime.answer("train", train=train)
    result = s3t("train", "llama-2-13b", "--set", "budget=2", "--address", "ray://head:10001")
    assert result.exit_code == 0
    assert "4 stages trained, 2 stages reused, 2.5 M tokens in 3 min 5 s" in result.stdout
    assert "settled" in result.stdout
    assert "reading data" not in result.stdout
    assert "reading data: 12,000 records\n" in result.stderr
    assert "stage aaaaaaaaaaaa (shard 0, slices 0>1): training" in result.stderr


def test_train_with_json_prints_the_report_alone(runtime: FakeRuntime) -> None:
    runtime.answer("train", train=returns(TRAINED))
    result = s3t("train", "llama-2-13b", "--json")
    assert json.loads(result.stdout) == TRAINED.model_dump(mode="json")


def test_train_of_an_unknown_config_is_refused_before_anything_starts(runtime: FakeRuntime) -> None:
    runtime.answer("train", train=raises(AssertionError("started")))
    result = s3t("train", "no-such-config.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: config no-such-config.yaml does not exist\nfix: ")
    assert result.stdout == ""


@pytest.mark.parametrize("kind", [ConfigError, DataError, LedgerError, StoreError, TrainError, ClusterError])
def test_a_refusal_is_two_lines_and_its_exit_code(runtime: FakeRuntime, kind: type[S3TError]) -> None:
    runtime.answer("train", train=raises(kind("node /very/long" + "/path" * 60 + " [red] is full\x1b[31m", "add one")))
    result = s3t("train", "llama-2-13b")
    assert result.exit_code == kind.exit_code
    assert result.stderr == f"error: node /very/long{'/path' * 60} [red] is full\\x1b[31m\nfix: add one\n"
    assert result.stdout == ""


def test_other_exceptions_are_bugs_and_escape(runtime: FakeRuntime) -> None:
    runtime.answer("train", train=raises(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        s3t("train", "llama-2-13b")


def test_ctrl_c_says_how_to_go_on(runtime: FakeRuntime) -> None:
    runtime.answer("train", train=raises(KeyboardInterrupt()))
    result = s3t("train", "llama-2-13b")
    assert result.exit_code == 130
    assert result.stderr == "interrupted; the same command goes on where it stopped\n"


# delete


class FakeDeletion:
    """Accepts anything and remembers in which order it was asked what."""

    def __init__(self, receipt: DeletionReceipt = RECEIPT, impact: Impact = IMPACT) -> None:
        self.receipt = receipt
        self.impact = impact
        self.calls: list[tuple[Any, ...]] = []

    def preview(self, run: FakeRun, ids: tuple[str, ...], subjects: tuple[str, ...]) -> Impact:
        self.calls.append(("preview", run.uri, tuple(ids), tuple(subjects)))
        return self.impact

    def accept(self, run: FakeRun, ids: tuple[str, ...], subjects: tuple[str, ...]) -> DeletionReceipt:
        self.calls.append(("accept", run.uri, tuple(ids), tuple(subjects)))
        return self.receipt

    def settle(self, run: FakeRun, request_id: str, *, address: str | None, watch: Callable[[Status], None]) -> Status:
        self.calls.append(("settle", request_id, address))
        watch(status(deletions=(deletion("pruned", request_id),)))
        return status(settled=True, deletions=(deletion("restored", request_id, 41.0),))

    def into(self, runtime: FakeRuntime) -> FakeDeletion:
        runtime.answer("delete", preview=self.preview, accept=self.accept, settle=self.settle)
        return self


def test_delete_prints_the_receipt_and_waits(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--id", " 18 ", "--subject", "ann", "--address", "auto")
    assert result.exit_code == 0
    assert fake.calls == [("accept", "runs/a", ("17", " 18 "), ("ann",)), ("settle", RECEIPT.request_id, "auto")]
    assert f"accepted {RECEIPT.request_id} at 2026-11-21T10:00:00Z" in result.stdout
    assert "2 records deleted; 2 stages taken out of service" in result.stdout
    assert "3 to 2" in result.stdout
    assert "restored after 41 s" in result.stdout
    assert "deletion dddddddddddd: pruned after 2 min 5 s" in result.stderr


def test_delete_without_waiting_stops_after_the_receipt(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--no-wait", "--json")
    assert [call[0] for call in fake.calls] == ["accept"]
    assert json.loads(result.stdout) == RECEIPT.model_dump(mode="json")


def test_the_json_document_is_the_receipt_also_when_it_waits(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--json")
    assert [call[0] for call in fake.calls] == ["accept", "settle"]
    assert json.loads(result.stdout) == RECEIPT.model_dump(mode="json")


def test_the_receipt_is_printed_even_if_the_wait_fails(runtime: FakeRuntime) -> None:
    fake = FakeDeletion()
    runtime.answer("delete", preview=fake.preview, accept=fake.accept, settle=raises(ClusterError("no GPU", "add one")))
    result = s3t("delete", "runs/a", "--id", "17")
    assert result.exit_code == ClusterError.exit_code
    assert RECEIPT.request_id in result.stdout
    assert result.stderr == "error: no GPU\nfix: add one\n"


def test_unknown_ids_are_listed_and_the_known_ones_go_on(runtime: FakeRuntime) -> None:
    receipt = RECEIPT.model_copy(update={"unknown_ids": ("x\x1b[2J", "[b]"), "unknown_subjects": ("bob",)})
    fake = FakeDeletion(receipt).into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--id", "x\x1b[2J", "--id", "[b]", "--subject", "bob")
    assert result.exit_code == 4
    assert [call[0] for call in fake.calls] == ["accept", "settle"]
    assert RECEIPT.request_id in result.stdout
    assert "unknown 2 ids: x\\x1b[2J, [b]" in result.stdout
    assert "error: the run does not hold 2 ids: x\\x1b[2J, [b]; 1 subject: bob\n" in result.stderr


def test_a_deletion_of_unknown_ids_alone_is_refused(runtime: FakeRuntime) -> None:
    refusal = UnknownRecords("the run holds none of the 1 records and subjects named", "check the ids")
    runtime.answer("delete", accept=raises(refusal), settle=raises(AssertionError("nothing to wait for")))
    result = s3t("delete", "runs/a", "--id", "x", "--json")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith("error: the run holds none")


def test_a_repeated_request_is_said_and_settled_again(runtime: FakeRuntime) -> None:
    fake = FakeDeletion(RECEIPT.model_copy(update={"repeated": True})).into(runtime)
    result = s3t("delete", "runs/a", "--id", "17")
    assert "this request had been accepted before" in result.stdout
    assert [call[0] for call in fake.calls] == ["accept", "settle"]


def test_a_dry_run_changes_nothing(runtime: FakeRuntime) -> None:
    fake = FakeDeletion(impact=IMPACT.model_copy(update={"unknown_ids": ("x",)})).into(runtime)
    result = s3t("delete", "runs/a", "--id", "17", "--id", "x", "--dry-run")
    assert [call[0] for call in fake.calls] == ["preview"]
    assert result.exit_code == 4
    assert "would delete 2 records (1 of them held out); nothing was changed" in result.stdout
    assert "1,640" in result.stdout
    assert "nothing was changed" in s3t("delete", "runs/a", "--id", "17", "--dry-run").stdout


def test_ids_come_from_standard_input(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    s3t("delete", "runs/a", "--ids-file", "-", "--no-wait", input="\ufeffa b\r\n\r\nc\na b\n")
    assert fake.calls == [("accept", "runs/a", ("a b", "c"), ())]


def test_a_missing_ids_file_touches_nothing(runtime: FakeRuntime, tmp_path: Path) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a", "--id", "1", "--ids-file", str(tmp_path / "gone"))
    assert result.exit_code == DataError.exit_code
    assert fake.calls == []


def test_a_deletion_of_nothing_is_a_usage_error(runtime: FakeRuntime) -> None:
    fake = FakeDeletion().into(runtime)
    result = s3t("delete", "runs/a")
    assert result.exit_code == 2
    assert "--ids-file" in result.stderr
    assert fake.calls == []


# status


def test_status_shows_the_run(runtime: FakeRuntime) -> None:
    runtime.answer("status", status=returns(status(settled=True)))
    result = s3t("status", "runs/a")
    assert result.exit_code == 0
    assert "0→1→2  ███ 3" in result.stdout
    assert result.stderr == ""


def test_status_as_json(runtime: FakeRuntime) -> None:
    seen = status(deletions=(deletion(),), running=(running(),))
    runtime.answer("status", status=returns(seen))
    assert Status.model_validate_json(s3t("status", "runs/a", "--json").stdout) == seen


def test_watching_ends_when_the_run_is_settled(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3t_ray.cli.read.SECONDS_BETWEEN_LOOKS", 0)
    looks = iter([status(running=(running(),)), status(), status(settled=True)])
    runtime.answer("status", status=lambda run: next(looks))
    result = s3t("status", "runs/a", "--watch", "--json")
    assert json.loads(result.stdout)["settled"] is True
    assert "training" in result.stderr
    assert next(looks, None) is None


def test_ctrl_c_of_a_watch_promises_nothing(runtime: FakeRuntime) -> None:
    runtime.answer("status", status=raises(KeyboardInterrupt()))
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

    runtime.answer("evaluate", evaluate=evaluate)
    runtime.answer("train", train=train)
    for args in (("eval", "runs/a", "--json"), ("train", "llama-2-13b", "--json")):
        result = s3t(*args)
        assert json.loads(result.stdout)
        assert "a library greets" in result.stderr


def test_eval_shows_each_depth(runtime: FakeRuntime) -> None:
    def evaluate(run: FakeRun, *, limit: int | None) -> Evaluation:
        assert limit == 500
        return EVALUATION

    runtime.answer("evaluate", evaluate=evaluate)
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

    runtime.answer("evaluate", generate=generate)
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

    runtime.answer("export", export=export)
    result = s3t("export", "runs/a", "--shard", "1", "out")
    assert "shard 1 at depth 2 (2 stages) written to out" in result.stdout
    assert "c" * 64 in result.stdout


def test_export_needs_to_know_the_shard(runtime: FakeRuntime) -> None:
    assert s3t("export", "runs/a", "out").exit_code == 2


@pytest.mark.parametrize(
    ("problems", "equal", "same_machine", "exit_code", "words"),
    [
        ((), True, True, 0, "verified"),
        ((), False, False, 0, "a distance, no proof"),
        ((), False, True, 8, "differs"),
        (("slice 2 of shard 0: digest differs",), True, True, 8, "problem: slice 2 of shard 0"),
    ],
)
def test_verify_fails_when_a_proof_does_not_hold(
    runtime: FakeRuntime, problems: tuple[str, ...], equal: bool, same_machine: bool, exit_code: int, words: str
) -> None:
    replayed = ReplayedStage(
        stage_id="a" * 64, shard=0, slices=(0, 1), equal=equal, largest_difference=0.0, same_machine=same_machine
    )

    def verify(run: FakeRun, *, replay: int, address: str | None, watch: Callable[[str], None]) -> Verification:
        watch("replaying stage 1 of 1")
        return Verification(records=10, stages=4, problems=problems, replayed=(replayed,) * replay)

    runtime.answer("verify", verify=verify)
    result = s3t("verify", "runs/a", "--replay", "1")
    assert result.exit_code == exit_code
    assert words in result.stdout
    assert "replaying stage 1 of 1" in result.stderr
    assert ("error: " in result.stderr) == (exit_code == 8)
    document = s3t("verify", "runs/a", "--replay", "1", "--json")
    assert (document.exit_code, json.loads(document.stdout)["problems"]) == (exit_code, list(problems))


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
