"""Fakes for the command line's tests: reports of the runtime, and a runtime that returns them.

They stand in for the runtime, so these tests prove rendering and exit codes, nothing about training
or deletion; tests/e2e takes the real path.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import Signature, signature
from types import TracebackType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from s3t_ray.cli.main import app
from s3t_ray.config.load import load_config
from s3t_ray.ledger.values import RunningStage
from s3t_ray.run.reports import (
    DeletionReceipt,
    DeletionStatus,
    DepthLoss,
    Evaluation,
    Failure,
    Impact,
    ShardImpact,
    ShardStatus,
    Status,
    TrainReport,
)

ORDERS = ((0, 1, 2), (1, 2, 0))


def running(stage_id: str = "a" * 64, step: int = 3, steps: int = 10, shard: int = 0) -> RunningStage:
    return RunningStage(
        stage_id=stage_id,
        shard=shard,
        slices=(0, 1),
        group=0,
        step=step,
        steps=steps,
        loss=1.25,
        tokens_per_second=900.0,
    )


def shard(index: int = 0, depths: tuple[int, ...] = (3, 1), trained: int = 4, failed: int = 0) -> ShardStatus:
    return ShardStatus(
        shard=index, records=1234, orders=ORDERS[: len(depths)], depths=depths, wanted=6, trained=trained,
        running=1, queued=1, failed=failed,
    )  # fmt: skip


def deletion(state: str = "pruned", request_id: str = "d" * 64, age_seconds: float = 125.0) -> DeletionStatus:
    return DeletionStatus(
        request_id=request_id, state=state, records=3, hits=((0, 2, 2), (-1, 0, 1)),
        accepted_at="2026-11-21T10:00:00Z", age_seconds=age_seconds,
    )  # fmt: skip


def status(settled: bool = False, **changes: Any) -> Status:
    values: dict[str, Any] = {
        "name": "alpaca", "storage": "/runs/alpaca", "records": 2468, "held_out": 10, "slices": 3,
        "shards": (shard(0), shard(1, (0, 0), 0)), "deletions": (), "settled": settled, "ids_derived": False,
    }  # fmt: skip
    return Status(**(values | changes))


IMPACT_SHARD = ShardImpact(
    shard=0, slices=(2,), records=2, stages=2, depths_before=(3, 1), depths_after=(2, 1), retrain_stages=2,
    retrain_records=1640,
)  # fmt: skip

IMPACT = Impact(records=2, held_out=1, already_deleted=0, unknown_ids=(), unknown_subjects=(), shards=(IMPACT_SHARD,))

RECEIPT = DeletionReceipt(
    request_id="d" * 64, accepted_at="2026-11-21T10:00:00Z", records=2, already_deleted=0, unknown_ids=(),
    unknown_subjects=(), stages_pruned=("a" * 64, "b" * 64), repeated=False, shards=(IMPACT_SHARD,),
)  # fmt: skip

EVALUATION = Evaluation(
    records=100, tokens=15000,
    by_depth=(DepthLoss(depth=0, loss=2.5, standard_error=0.01), DepthLoss(depth=3, loss=1.5, standard_error=0.01)),
    live=DepthLoss(depth=3, loss=1.6, standard_error=0.01, metrics={"accuracy": 0.875}), depths=(3, 0),
)  # fmt: skip

TRAINED = TrainReport(trained=4, reused=2, seconds=185.0, tokens=2_500_000, status=status(settled=True))

FAILURE = Failure(kind="stage", stage_id="f" * 64, error="loss is not finite at step 3", attempts=2)


class FakeRun:
    """Opens any run, and records the arguments. `ensemble`: how its shards answer together."""

    ensemble = "logits"

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.config = load_config("demo", [f"ensemble={self.ensemble}"])

    @classmethod
    def open(cls, uri: str, read_only: bool = False) -> FakeRun:
        return cls(uri)

    open_to_look = open

    def __enter__(self) -> FakeRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class FakeRuntime:
    """Replaces the runtime for one test.

    Every call must fit the signature of the function that it replaces, so the fakes cannot drift from
    the runtime unseen.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.setattr("s3t_ray.run.run.Run", FakeRun)

    def answer(self, module: str, **functions: Callable[..., Any]) -> None:
        """Replace functions of a module, named with its room ("runtime.train")."""
        real = import_module(f"s3t_ray.{module}")
        for name, fake in functions.items():
            self._monkeypatch.setattr(real, name, _checked(fake, signature(getattr(real, name))))


def _checked(fake: Callable[..., Any], real: Signature) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        real.bind(*args, **kwargs)
        return fake(*args, **kwargs)

    return call


def s3t(*args: str, input: str | bytes | None = None) -> Result:
    """Run the command in this process. Passes on exceptions that are not ours."""
    result = CliRunner().invoke(app, list(args), input=input, catch_exceptions=False)
    assert "Traceback" not in result.stderr
    return result


def returns(value: object) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*args: object, **kwargs: object) -> None:
        raise error

    return function
