"""`s3t demo`: trains, deletes, heals and verifies on one machine, and explains each step.

`run_demo` reads from top to bottom. Every step calls the same code as the other commands, and the
demo leaves an ordinary run behind.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape

from s3t_ray.config.load import dump_config, load_config
from s3t_ray.config.schema import Config
from s3t_ray.data.records import canonical
from s3t_ray.demo.base_weights import ensure_demo_model
from s3t_ray.demo.depth_history import depth_points, marks
from s3t_ray.demo.docstrings import DemoData, write_demo_data
from s3t_ray.demo.pictures import ServedLoss, draw_depths, draw_losses
from s3t_ray.errors import ConfigError, VerificationFailed
from s3t_ray.run.reports import DeletionReceipt, Evaluation, Status
from s3t_ray.run.run import Run

QUESTION = "Explain `logging.Formatter.formatException` from Python's standard library."
ANSWER_TOKENS = 32
SERVED_WITHIN_SECONDS = 60.0


class Display(Protocol):
    """Shows the status of a run as it changes."""

    def watch(self, state: Status) -> None: ...


ShowProgress = Callable[[Console], AbstractContextManager[Display]]


@dataclass(frozen=True)
class _Moment:
    """The evaluation of what was served at one moment, and its loss on the records of the deleted person."""

    name: str
    report: Evaluation
    forgotten: float
    forgotten_by_base: float


@dataclass(frozen=True)
class _Stage:
    """What the steps of the demo share: the run, its data, the scheduler and the serving replica."""

    run: Run
    data: DemoData
    scheduler: Any
    replica: Any
    progress: ShowProgress


def run_demo(folder: Path, console: Console, progress: ShowProgress) -> None:
    """Train, serve, delete a person, heal and verify in `folder`. Takes about ten minutes on two CPU cores.

    A second call resumes an interrupted demo. Raises ConfigError if the demo in `folder` is
    finished, VerificationFailed if a check fails, and what the other commands raise.
    """
    from s3t_ray.runtime.connect import connected

    began = time.monotonic()
    config, data = _prepare(folder, console)
    with Run.create(config) as run:
        if run.ledger.run() is not None and run.ledger.certificates():
            raise ConfigError(
                f"the demo in {folder} is finished",
                f"inspect it (s3t status {folder}), or remove {folder} and {run.location.keys_dir} to start over",
            )
        _explain_plan(config, data, console)
        with connected(None), _open_stage(run, data, console, progress) as stage:
            _train(stage, console)
            person = _who_asks(stage)
            moments = [_measure(stage, "trained", person)]
            _show_depths(moments[0].report, console)
            receipt = _delete(stage, person, console)
            moments.append(_measure(stage, "after the receipt", person))
            _compare(moments, console)
            _heal(stage, receipt, console)
            moments.append(_measure(stage, "healed", person))
            _compare(moments, console)
        _prove(run, console)
        _draw(run, folder, moments, console)
    other = next(name for name in data.people if name != person)
    _tell_what_is_next(folder, other, console, time.monotonic() - began)


def _prepare(folder: Path, console: Console) -> tuple[Config, DemoData]:
    _title(console, 1, "The base model and the data")
    model = ensure_demo_model(folder.absolute().parent / "demo-model", lambda line: _say(console, escape(line)))
    data = write_demo_data(_beside(folder, "input"))  # outside the run's storage: it is not the run's copy
    _say(
        console,
        f"Data: {len(data.records)} docstrings from Python's standard library, written by {len(data.people)} authors, "
        f"and {len(data.holdout)} held out for evaluation. The author is the [b]subject[/b] of a record.",
    )
    settings = {
        "model.path": model,
        "model.shape": "null",  # read from the folder
        "data.path": data.path,
        "data.holdout_path": data.holdout_path,
        "storage.uri": folder.absolute(),
    }
    return load_config("demo", [f"{name}={value}" for name, value in settings.items()]), data


def _explain_plan(config: Config, data: DemoData, console: Console) -> None:
    _title(console, 2, "The plan")
    orders = " and ".join("→".join(map(str, order)) for order in _orders(config))
    _say(
        console,
        f"A keyed hash of the subject assigns each record to one of m = {config.shards} shards with "
        f"L = {config.slices} slices each. Each shard trains B = {config.budget} sequences, which add the slices in "
        f"different orders: {orders}. A sequence is trained in {config.slices} stages. Each stage adds one slice, and "
        f"LoRA adapters on the next {config.lora.layers_per_group} layers, from the top of the model down.",
    )


def _train(stage: _Stage, console: Console) -> None:
    from s3t_ray.runtime.driver import drive

    _title(console, 3, "Training with Ray and DeepSpeed")
    with stage.progress(console) as display:
        drive(stage.run, detached=False, watch=display.watch, until=lambda snapshot, state: snapshot.idle)
    _ask(stage, console)


def _delete(stage: _Stage, person: str, console: Console) -> DeletionReceipt:
    from s3t_ray.run import deletion

    _title(console, 4, f"A deletion request from {person} (simulated)")
    for record in stage.data.records_of(person):
        _say(console, f"  {escape(f'{record.id}: {record.output[:90]}…')}", style="dim")
    (shard,) = deletion.preview(stage.run, [], [person]).shards
    _say(
        console,
        f"All {shard.records} records are in slice {shard.slices[0]} of shard {shard.shard}. {shard.stages} trained "
        f"stages saw them. Pruning those reduces the depths of the shard's sequences from "
        f"{_list(shard.depths_before)} to {_list(shard.depths_after)}.",
    )
    receipt = deletion.accept(stage.run, [], [person])
    began = time.monotonic()
    depth = max(shard.depths_after, default=0)
    served = _wait_for_depth(stage, shard.shard, depth)
    _say(console, f"Receipt [b]{receipt.request_id}[/b]: the deletion is durable and cannot be lost.")
    _say(
        console,
        f"[b]{served - began:.2f} s[/b] after the receipt, that shard answers from depth {depth}. "
        "No training was needed.",
    )
    return receipt


def _heal(stage: _Stage, receipt: DeletionReceipt, console: Console) -> None:
    from s3t_ray.runtime.delete import settle

    _title(console, 5, "Prune, purge, re-queue: retraining the pruned stages without these records")
    with stage.progress(console) as display:
        settle(stage.run, receipt.request_id, watch=display.watch)
    certificate = stage.run.ledger.certificate(receipt.request_id)
    if certificate is None:
        raise VerificationFailed(f"deletion {receipt.request_id} has no certificate", "report this bug")
    entry = certificate.facts.sequence
    _say(console, f"Restored. Certificate (entry {entry} of the log), signed (Ed25519): {certificate.hash[:32]}…")
    _ask(stage, console)


def _prove(run: Run, console: Console) -> None:
    from s3t_ray.audit.verify import verify

    _title(console, 6, "Verification: retraining two live stages from the base model and the retained records only")
    report = verify(run, replay=2)
    for stage in report.replayed:
        _say(
            console,
            f"  shard {stage.shard}, slices {_list(stage.slices)}: "
            + ("every byte equal" if stage.verdict == "equal" else f"differs by up to {stage.largest_difference:.2e}"),
        )
    if report.result != "verified":
        raise VerificationFailed("; ".join(report.problems) or "a replayed stage differs", "report this bug")
    _say(
        console,
        f"Recomputed the digests of {report.records} records and the ids of {report.stages} stages: all match. The "
        "model is exactly the one that training without these records produces.",
    )


def _draw(run: Run, folder: Path, moments: list[_Moment], console: Console) -> None:
    events = run.ledger.events()
    served = [ServedLoss(moment.name, moment.report.live.loss, moment.forgotten) for moment in moments]
    by_depth = [entry.loss for entry in moments[0].report.by_depth]
    place = _beside(folder, "pictures")  # outside the run's storage, where an audit would report unknown files
    place.mkdir(exist_ok=True)
    pictures = (
        draw_depths(depth_points(events), marks(events), run.row.slices, place / "depths.png"),
        draw_losses(by_depth, served, place / "losses.png"),
    )
    _say(console, "Charts: " + " and ".join(escape(str(path)) for path in pictures))


def _tell_what_is_next(folder: Path, other: str, console: Console, seconds: float) -> None:
    """Print commands to try, ready to paste. A test runs each of them."""
    _title(console, 7, "Next steps")
    _say(
        console,
        f"The run is in {escape(str(folder))}. Inspect it, query it, verify it, or preview another deletion:",
    )
    for arguments in (
        ("status", str(folder)),
        ("eval", str(folder)),
        ("generate", str(folder), "Explain json.dumps."),
        ("verify", str(folder), "--replay", "1"),
        ("delete", str(folder), "--subject", other, "--dry-run"),
    ):
        line = f"  $ s3t {shlex.join(arguments)}"
        console.print(line, style="bold", markup=False, highlight=False, soft_wrap=True)
    _say(console, f"The demo took {seconds / 60:.1f} minutes.")


@contextmanager
def _open_stage(run: Run, data: DemoData, console: Console, progress: ShowProgress) -> Iterator[_Stage]:
    """Start the scheduler and one serving replica; stop both when the demo ends."""
    import ray

    from s3t_ray.ensemble.replica import Replica
    from s3t_ray.run.input.ingest import ingest
    from s3t_ray.runtime.actors import start_scheduler

    ingest(run, lambda line: console.print(line, highlight=False))
    run.check_recipe()
    scheduler, _ = start_scheduler(run, detached=False)
    uri = run.location.storage_uri
    replica = (
        ray.remote(Replica)
        .options(num_cpus=0, max_concurrency=4, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
        .remote(dump_config(run.config), str(run.base), uri, 1)
    )
    ray.get(replica.ready.remote())
    ray.get(scheduler.attach_replica.remote("demo", replica))
    try:
        yield _Stage(run, data, scheduler, replica, progress)
    finally:
        ray.kill(replica)
        ray.kill(scheduler)


def _who_asks(stage: _Stage) -> str:
    """The person whose deletion leaves the shard the deepest, which shows what several orders are good for."""
    from s3t_ray.run import deletion

    def left(person: str) -> tuple[int, int]:
        impact = deletion.preview(stage.run, [], [person])
        depth = max((depth for shard in impact.shards for depth in shard.depths_after), default=0)
        return depth, impact.records

    return max(stage.data.people, key=left)


def _wait_for_depth(stage: _Stage, shard: int, depth: int) -> float:
    """Wait until the replica serves `depth` in this shard; return the time.monotonic() of that moment.

    Raises VerificationFailed after SERVED_WITHIN_SECONDS.
    """
    import ray

    deadline = time.monotonic() + SERVED_WITHIN_SECONDS
    while ray.get(stage.replica.ready.remote()).depths[shard] != depth:
        if time.monotonic() > deadline:
            raise VerificationFailed(f"the replica still serves pruned stages of shard {shard}", "report this bug")
    return time.monotonic()


def _measure(stage: _Stage, name: str, person: str) -> _Moment:
    """Measure the loss of the model served now, on the held-out records and on the person's own records."""
    import ray

    from s3t_ray.ensemble.in_process import evaluation, held_out_contents

    own = [
        canonical({"instruction": record.instruction, "input": record.input, "output": record.output})
        for record in stage.data.records_of(person)
    ]
    held_out = ray.get(stage.replica.evaluate.remote(held_out_contents(stage.run)))
    forgotten = ray.get(stage.replica.evaluate.remote(own, (0,)))
    return _Moment(name, evaluation(held_out), forgotten.current.loss, forgotten.by_depth[0].loss)


def _show_depths(report: Evaluation, console: Console) -> None:
    _say(console, "Held-out loss of the ensemble by depth (nats per token, lower is better):")
    for entry in report.by_depth:
        name = "base model" if entry.depth == 0 else f"depth {entry.depth}"
        _say(console, f"  {name:<10}  {entry.loss:.3f}  " + "█" * round(entry.loss * 12))


def _compare(moments: list[_Moment], console: Console) -> None:
    _say(console, "Loss as served, on the held-out records and on the deleted person's records:")
    base = moments[0]
    _say(console, f"  {'base model':<18} {base.report.by_depth[0].loss:.3f}   {base.forgotten_by_base:.3f}")
    for moment in moments:
        _say(console, f"  {moment.name:<18} {moment.report.live.loss:.3f}   {moment.forgotten:.3f}")


def _ask(stage: _Stage, console: Console) -> None:
    import ray

    answer = ray.get(stage.replica.generate.remote(QUESTION, ANSWER_TOKENS))
    _say(console, f"Q: {QUESTION}", style="dim")
    _say(console, f"A: {escape(answer.text.strip())}…  (depths {_list(answer.depths)})", style="dim")


def _beside(folder: Path, what: str) -> Path:
    """A folder of the demo outside the run's storage."""
    return folder.absolute().with_name(f"{folder.absolute().name}.{what}")


def _orders(config: Config) -> tuple[tuple[int, ...], ...]:
    from s3t_ray.plan.orders import orders

    return orders(config, 0)


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=True, highlight=False)


def _title(console: Console, number: int, text: str) -> None:
    _say(console, f"\n[b]{number}. {text}[/b]")


def _list(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
