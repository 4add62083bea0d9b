"""Runs a sweep, from its points to a recommendation.

points -> trials that share runs -> forecast each -> train and measure each (unless only forecasting) ->
table, Pareto front, chart, recommendation. Choosing a config by held-out loss depends on the data, which
exactness does not cover: choose before the run that people's deletions apply to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from s3t_ray.config.base_model import digest_base, find_base
from s3t_ray.config.schema import Config
from s3t_ray.sweep.choose import Need, best, front, objectives, recommendation
from s3t_ray.sweep.objectives import Forecast, Measured, Outcome, Size, forecast
from s3t_ray.sweep.result_file import save
from s3t_ray.sweep.show_sweep import draw
from s3t_ray.sweep.space import Point
from s3t_ray.sweep.trials import arrange
from s3t_ray.sweep.tuning import run_trials


class Mode(Enum):
    """How far a sweep goes."""

    TRAIN = "train"  # train every trial and measure its losses
    FORECAST = "forecast"  # compute only what follows from the configs


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep."""

    outcomes: tuple[Outcome, ...]
    front: tuple[Outcome, ...]
    chosen: Outcome | None
    failures: dict[str, str]  # label -> why its trial failed
    recommendation: str
    picture: Path


def sweep(
    base: Config,
    points: Sequence[Point],
    folder: Path,
    need: Need,
    size: Size,
    mode: Mode,
    *,
    address: str | None = None,
    limit: int | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Sweep:
    """Run the trial of every point in `folder` (an absolute path visible on all nodes) and compare them.

    Writes sweep.json and sweep.png there. Raises ConfigError, before anything starts, if a point is impossible.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = digest_base(find_base(base.model)) if mode is Mode.TRAIN else "not read"
    trials = arrange(base, points, folder, digest)
    note(f"{len(trials)} trials in {len({trial.root for trial in trials})} runs under {folder}")
    forecasts = [forecast(trial.config, size, need.deletions) for trial in trials]
    found: dict[int, Measured | str] = {}
    if mode is Mode.TRAIN:
        found = run_trials(trials, folder, limit, address, note)
    outcomes = tuple(
        _outcome(trial.point.label, trial.root, expected, found.get(number))
        for number, (trial, expected) in enumerate(zip(trials, forecasts, strict=True))
    )
    failures = {trials[number].point.label: each for number, each in found.items() if isinstance(each, str)}
    judged = [outcome for outcome in outcomes if outcome.label not in failures]
    best_ones = front(judged, lambda outcome: objectives(outcome, need.deletions))
    chosen = best(judged, need)
    result = Sweep(
        outcomes=outcomes,
        front=best_ones,
        chosen=chosen,
        failures=failures,
        recommendation=recommendation(judged, need) if judged else "Every trial failed: see the failures.",
        picture=draw(judged, best_ones, need, chosen, folder / "sweep.png") if judged else folder / "sweep.png",
    )
    save(folder / "sweep.json", _Written(outcomes, tuple(o.label for o in best_ones), failures, result.recommendation))
    return result


@dataclass(frozen=True)
class _Written:
    outcomes: tuple[Outcome, ...]
    front: tuple[str, ...]
    failures: dict[str, str]
    recommendation: str


def _outcome(label: str, root: str, expected: Forecast, measured: Measured | str | None) -> Outcome:
    return Outcome(label, root, expected, measured if isinstance(measured, Measured) else None)
