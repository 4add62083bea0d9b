"""`s3t train` against a fake runtime: what goes where, and what becomes of errors.

The runtime is replaced, so nothing here trains or deletes; tests/e2e takes the same commands down the
real path.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from s3t_ray.errors import ClusterError, ConfigError, DataError, LedgerError, S3TError, StoreError, TrainError
from s3t_ray.run.reports import Status
from tests.fakes.command_line import TRAINED, FakeRuntime, raises, returns, running, s3t, status


def test_train_reports_on_stdout_and_progress_on_stderr(runtime: FakeRuntime) -> None:
    def train(
        config: Any,
        *,
        address: str | None,
        watch: Callable[[Status], None],
        note: Callable[[str], None],
        drop_stages: bool,
    ) -> Any:
        assert not drop_stages
        assert (config.name, config.budget, address) == ("llama-2-13b", 2, "ray://head:10001")
        note("reading data: 12,000 records")
        watch(status(running=(running(),)))
        return TRAINED

    runtime.answer("runtime.train", train=train)
    result = s3t("train", "llama-2-13b", "--set", "budget=2", "--address", "ray://head:10001")
    assert result.exit_code == 0
    assert "4 stages trained, 2 stages reused, 2.5 M tokens in 3 min 5 s" in result.stdout
    assert "settled" in result.stdout
    assert "reading data" not in result.stdout
    assert "reading data: 12,000 records\n" in result.stderr
    assert "stage aaaaaaaaaaaa (shard 0, slices 0>1): training" in result.stderr


def test_train_with_json_prints_the_report_alone(runtime: FakeRuntime) -> None:
    runtime.answer("runtime.train", train=returns(TRAINED))
    result = s3t("train", "llama-2-13b", "--json")
    assert json.loads(result.stdout) == TRAINED.model_dump(mode="json")


def test_train_of_an_unknown_config_is_refused_before_anything_starts(runtime: FakeRuntime) -> None:
    runtime.answer("runtime.train", train=raises(AssertionError("started")))
    result = s3t("train", "no-such-config.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: config no-such-config.yaml does not exist\nfix: ")
    assert result.stdout == ""


@pytest.mark.parametrize("kind", [ConfigError, DataError, LedgerError, StoreError, TrainError, ClusterError])
def test_a_refusal_is_two_lines_and_its_exit_code(runtime: FakeRuntime, kind: type[S3TError]) -> None:
    runtime.answer(
        "runtime.train", train=raises(kind("node /very/long" + "/path" * 60 + " [red] is full\x1b[31m", "add one"))
    )
    result = s3t("train", "llama-2-13b")
    assert result.exit_code == kind.exit_code
    assert result.stderr == f"error: node /very/long{'/path' * 60} [red] is full\\x1b[31m\nfix: add one\n"
    assert result.stdout == ""


def test_other_exceptions_are_bugs_and_escape(runtime: FakeRuntime) -> None:
    runtime.answer("runtime.train", train=raises(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        s3t("train", "llama-2-13b")


def test_ctrl_c_says_how_to_go_on(runtime: FakeRuntime) -> None:
    runtime.answer("runtime.train", train=raises(KeyboardInterrupt()))
    result = s3t("train", "llama-2-13b")
    assert result.exit_code == 130
    assert result.stderr == "interrupted; the same command resumes where it stopped\n"
