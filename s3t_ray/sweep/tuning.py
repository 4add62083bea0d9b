"""The trials through Ray Tune: one after another, each by the same calls as `s3t train` and `s3t eval`.

In: trials. Out: what each measured. A trial holds no CPU and no GPU of its own: its worker groups take
what the cluster has, and there is one trial at a time, so that a cluster is never shared by halves and
trials of one run follow each other. A trial that fails is told of; the others go on. What a trial measured
is kept in the sweep's folder: begun again, a sweep makes only the trials that had not ended, and the runs
of those train only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from s3t_ray.config.load import dump_config
from s3t_ray.errors import DataError
from s3t_ray.runtime.connect import connected
from s3t_ray.sweep.objectives import Measured
from s3t_ray.sweep.trials import Trial

HEAD_NODE = {"node:__internal_head__": 0.001}
"""What a trial's own process asks of Ray: nothing but to be on the head node, where the runs' keys are made."""

MEASURED_FOLDER = "measured"
"""In the sweep's folder: what each trial measured."""

TUNE_FOLDER = "tune"
"""In the sweep's folder: Tune's own notes of its trials."""


def run_trials(
    trials: Sequence[Trial], folder: Path, limit: int | None, address: str | None, note: Callable[[str], None]
) -> dict[int, Measured | str]:
    """Train and measure; by the trial's number what was measured, or why it failed.

    `limit`: held-out records to measure losses on, at most.
    """
    files = [folder / MEASURED_FOLDER / f"{_name(trial, limit)}.json" for trial in trials]
    found: dict[int, Measured | str] = {
        number: _measured(json.loads(file.read_text())) for number, file in enumerate(files) if file.is_file()
    }
    if found:
        note(f"{len(found)} of {len(trials)} trials were measured before")
    ahead = [number for number in range(len(trials)) if number not in found]
    if not ahead:
        return found
    # Tune would also write TensorBoard and CSV files of each trial.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    with connected(address):
        from ray import tune
        from ray.tune.logger import JsonLoggerCallback

        callbacks = [JsonLoggerCallback(), _teller(trials, note)]  # without the first, Tune warns of every trial
        trainable = tune.with_parameters(_train_and_measure, trials=tuple(trials), files=tuple(files), limit=limit)
        tuner = tune.Tuner(
            tune.with_resources(trainable, HEAD_NODE),
            param_space={"trial": tune.grid_search(ahead)},
            # One process for all trials: it imports torch once.
            tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
            run_config=tune.RunConfig(
                name="trials", storage_path=str(folder / TUNE_FOLDER), verbose=0, callbacks=callbacks
            ),
        )
        results = tuner.fit()
    for result in results:
        number = int(result.config["trial"]) if result.config else int(result.metrics["trial"])
        found[number] = str(result.error) if result.error else _measured(result.metrics)
    return found


def _train_and_measure(
    params: Mapping[str, int], trials: Sequence[Trial], files: Sequence[Path], limit: int | None
) -> None:
    """One trial, in a process of Tune's."""
    from ray import tune

    from s3t_ray.ensemble.in_process import evaluate
    from s3t_ray.run.run import Run
    from s3t_ray.runtime.train import train

    trial = trials[params["trial"]]
    report = train(trial.config)
    losses: tuple[float, ...] = ()
    with Run.open(trial.config.storage.uri) as run:
        with suppress(DataError):  # nothing is held out, so there is nothing to measure on
            losses = tuple(entry.loss for entry in evaluate(run, limit=limit).by_depth)
    metrics = {
        "losses": losses,
        "trained": report.trained,
        "reused": report.reused,
        "seconds": report.seconds,
        "tokens": report.tokens,
    }
    _keep(files[params["trial"]], metrics)
    tune.report(metrics)


def _name(trial: Trial, limit: int | None) -> str:
    """Of what a trial measured: by all that it depends on."""
    return hashlib.sha256(f"{dump_config(trial.config)}\n{limit}".encode()).hexdigest()[:16]


def _keep(file: Path, metrics: Mapping[str, Any]) -> None:
    """Whole or not at all: a reader must not find half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False) as begun:
        json.dump(metrics, begun)
    os.replace(begun.name, file)


def _measured(metrics: Mapping[str, Any]) -> Measured:
    return Measured(
        loss_by_depth=tuple(metrics["losses"]),
        trained_stages=metrics["trained"],
        reused_stages=metrics["reused"],
        seconds=metrics["seconds"],
        tokens=metrics["tokens"],
    )


def _teller(trials: Sequence[Trial], note: Callable[[str], None]) -> Any:
    """A callback of Tune's that says in one line how each trial goes."""
    from ray import tune

    class Teller(tune.Callback):
        def on_trial_start(self, **happened: Any) -> None:
            number = happened["trial"].config["trial"]
            note(f"trial {number + 1} of {len(trials)}: {trials[number].point.label}")

        def on_trial_result(self, **happened: Any) -> None:
            found = _measured(happened["result"])
            note(f"  trained {found.trained_stages} stages, shared {found.reused_stages}, in {found.seconds:.0f} s")

        def on_trial_error(self, **_: Any) -> None:
            note("  failed; the other trials go on")

    return Teller()
