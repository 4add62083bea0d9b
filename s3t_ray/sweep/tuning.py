"""Runs the trials with Ray Tune. Each trial uses the same functions as `s3t train` and `s3t eval`.

In: trials. Out: the measurements of each. The trials of one run are sequential, in one process. Different runs are
parallel if the cluster has room for the worker groups of all of them (`side_by_side`). A trial's process reserves no
CPU or GPU and never loads the base model: worker groups train, and an actor with a rank's resources evaluates. A failed
trial is reported, and the others continue. Measurements are stored in the sweep's folder, so a restarted sweep runs
only the unfinished trials, and those train only what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from s3t_ray.config.schema import Config
from s3t_ray.errors import DataError, S3TError
from s3t_ray.plan.resources import Resources, cluster_room
from s3t_ray.runtime.connect import connected, nodes
from s3t_ray.sweep.measured_file import keep, kept, measured_file
from s3t_ray.sweep.objectives import Measured
from s3t_ray.sweep.trials import Trial

HEAD_NODE = {"node:__internal_head__": 0.001}
"""The only resource of a trial's process: it places the process on the head node, where the runs' keys are created."""

TUNE_FOLDER = "tune"
"""The folder of Tune's files, inside the sweep's folder."""


def run_trials(
    trials: Sequence[Trial], folder: Path, limit: int | None, address: str | None, note: Callable[[str], None]
) -> dict[int, Measured | str]:
    """Train and measure all trials. Returns the measurements, or the error, by the trial's number.

    `limit`: maximum number of held-out records for the losses. Raises ClusterError if Ray cannot be reached, DataError
    if a stored measurement is invalid.
    """
    files = [measured_file(folder, trial, limit) for trial in trials]
    before = {number: kept(file) for number, file in enumerate(files)}
    found: dict[int, Measured | str] = {number: each for number, each in before.items() if each is not None}
    if found:
        note(f"{len(found)} of {len(trials)} trials were already measured")
    ahead: dict[str, list[int]] = {}  # unfinished trials by run, in the order to run them
    for number, trial in enumerate(trials):
        if number not in found:
            ahead.setdefault(trial.root, []).append(number)
    if not ahead:
        return found
    # By default, Tune also writes TensorBoard and CSV files for each trial.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    with connected(address):
        from ray import tune
        from ray.tune.logger import JsonLoggerCallback

        at_once = side_by_side([trials[numbers[0]].config for numbers in ahead.values()], nodes())
        if at_once > 1:
            note(f"{at_once} of {len(ahead)} runs in parallel")
        told: dict[int, str] = {}
        callbacks = [JsonLoggerCallback(), _teller(trials, note, told)]  # without the first, Tune warns of every trial
        trainable = tune.with_parameters(_train_and_measure, trials=tuple(trials), files=tuple(files), limit=limit)
        tuner = tune.Tuner(
            tune.with_resources(trainable, HEAD_NODE),
            param_space={"trials": tune.grid_search([tuple(numbers) for numbers in ahead.values()])},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once, reuse_actors=True),
            run_config=tune.RunConfig(
                name="trials", storage_path=str(folder / TUNE_FOLDER), verbose=0, callbacks=callbacks
            ),
        )
        results = tuner.fit()
    died = {number: str(result.error) for result in results if result.error for number in result.config["trials"]}
    for number in (number for numbers in ahead.values() for number in numbers):
        found[number] = (
            kept(files[number]) or told.get(number) or died.get(number) or "the trial ended without a result"
        )
    return found


def side_by_side(configs: Sequence[Config], each: Sequence[Resources]) -> int:
    """The number of runs that can train in parallel: the worker groups of any such set of runs fit on the nodes.

    Pure. `each`: the resources of each node. A run with `workers.autoscale_to` counts as using the entire cluster.
    """
    shares = []
    for config in configs:
        groups = 1 if config.workers.groups == "auto" else config.workers.groups
        fits = cluster_room(config, each)  # a run's own limit does not restrict the number of runs
        shares.append(groups / fits if fits and config.workers.autoscale_to is None else 1.0)
    shares.sort(reverse=True)
    count = 0
    while count < len(shares) and sum(shares[: count + 1]) <= 1.0 + 1e-9:
        count += 1
    return max(1, count)


def _train_and_measure(
    params: Mapping[str, Sequence[int]], trials: Sequence[Trial], files: Sequence[Path], limit: int | None
) -> None:
    """Run the trials of one run sequentially, in a process of Tune."""
    from ray import tune

    for number in params["trials"]:
        tune.report({"trial": number, "begun": True})
        try:
            measured = _measure(trials[number].config, limit)
        except S3TError as error:
            tune.report({"trial": number, "error": str(error)})
            continue
        keep(files[number], measured)
        tune.report({"trial": number, "measured": asdict(measured)})


def _measure(config: Config, limit: int | None) -> Measured:
    """Train the run of `config`, and measure its losses in an actor with the resources of a rank."""
    from s3t_ray.ensemble.in_process import evaluate
    from s3t_ray.run.run import Run
    from s3t_ray.runtime.model_host import OnCluster
    from s3t_ray.runtime.train import train

    began = _now()
    report = train(config)
    losses: tuple[float, ...] = ()
    with Run.open(config.storage.uri) as run, closing(OnCluster(run, lambda line: None)) as host:
        with suppress(DataError):  # without held-out records, there are no losses to measure
            losses = tuple(entry.loss for entry in host.call(evaluate, limit=limit).by_depth)
    return Measured(
        loss_by_depth=losses,
        trained_stages=report.trained,
        reused_stages=report.reused,
        seconds=report.seconds,
        tokens=report.tokens,
        began=began,
        ended=_now(),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _teller(trials: Sequence[Trial], note: Callable[[str], None], told: dict[int, str]) -> Any:
    """A Tune callback that reports each trial in one line, and stores the errors of failed trials in `told`."""
    from ray import tune

    class Teller(tune.Callback):
        def on_trial_result(self, **happened: Any) -> None:
            result = happened["result"]
            number = result["trial"]
            name = f"trial {number + 1} of {len(trials)}, {trials[number].point.label}"
            if result.get("begun"):
                note(name)
            elif "error" in result:
                told[number] = result["error"]
                note(f"{name}: failed; the other trials continue")
            else:
                found = Measured(**result["measured"])
                note(
                    f"{name}: trained {found.trained_stages} stages, shared {found.reused_stages}, "
                    f"in {found.seconds:.0f} s"
                )

        def on_trial_error(self, **_: Any) -> None:
            note("the trials of a run failed; those of the other runs continue")

    return Teller()
