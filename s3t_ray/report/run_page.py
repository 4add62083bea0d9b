"""Builds the page of one run: its status, its depth over time, its deletions and proofs, its quality and its cost.

In: `ReportedRun`, evaluations of the run, and the price of a worker group. Out: a `ReportPage`. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from s3t_ray.ledger.values import Event, EventKind
from s3t_ray.report.cell_text import seconds_text
from s3t_ray.report.page_model import (
    Cell,
    ChartMark,
    ChartSeries,
    ReportChart,
    ReportFact,
    ReportPage,
    ReportSection,
    ReportTable,
    thinned_to,
)
from s3t_ray.report.run_facts import DeletionFound, ReportedRun, StageFound
from s3t_ray.run.reports import Evaluation
from s3t_ray.scheduler.scheduler import DEPTHS
from s3t_ray.store.manifest import Manifest

MOST_SHARDS_DRAWN = 5
MOST_LOSSES_DRAWN = 6


def run_page(
    facts: ReportedRun, evaluations: Mapping[str, Evaluation], price_per_hour: float | None = None
) -> ReportPage:
    """The page of a run.

    `evaluations`: outputs of `s3t eval --json`, by name. `price_per_hour`: of one worker group, in any currency.
    """
    sections = (_overview(facts), _depths(facts), _deletions(facts), _quality(facts, evaluations))
    return ReportPage(
        title=f"Run {facts.status.name}",
        subtitle=f"{facts.status.storage}, as its ledger had it on {facts.made_at}",
        sections=(*sections, _cost(facts, price_per_hour)),
    )


def _overview(facts: ReportedRun) -> ReportSection:
    now = facts.status
    wanted, trained = (sum(getattr(shard, name) for shard in now.shards) for name in ("wanted", "trained"))
    rows: list[tuple[str, Cell]] = [
        ("State", "settled" if now.settled else now.waiting or "not finished: `s3t train` continues it"),
        ("Task", facts.task),
        ("Base model", facts.base),
        ("Training records", now.records),
        ("Held-out records", now.held_out),
        ("Shards x slices", f"{len(now.shards)} x {now.slices}"),
        ("Stages trained, of those wanted", f"{trained:,} of {wanted:,}"),
        ("Deletions", len(now.deletions)),
        ("Entries in the signed log", facts.log_entries),
        ("Run id", facts.run_id),
        ("Recipe digest", facts.recipe_digest),
        ("Base digest", facts.base_digest),
        ("Public key (SHA-256)", facts.key_fingerprint),
    ]
    table = ReportTable(
        stem="shards",
        title="Shards",
        columns=("shard", "records", "serves depth", "depth of each sequence", "stages", "trained", "failed"),
        rows=tuple(
            (s.shard, s.records, s.depth, " ".join(map(str, s.depths[:40])), s.wanted, s.trained, s.failed)
            for s in now.shards
        ),
        caption="A shard answers with its deepest sequence. Depth 0: the shard is dead, and only the others answer.",
    )
    problems = [*facts.problems, *(f"{failure.title} failed: {failure.error}" for failure in now.failures)]
    text = tuple(f"Problem: {problem}" for problem in problems)
    named = tuple(ReportFact(name=name, value=value) for name, value in rows)
    return ReportSection(title="The run", text=text, facts=named, tables=(table,))


def _depths(facts: ReportedRun) -> ReportSection:
    series = depth_series(facts.history, len(facts.status.shards))
    title = "Depth over time"
    if not series:
        return ReportSection(title=title, text=("No stage has been trained yet.",))
    chart = ReportChart(
        stem="depth-over-time",
        title="Depth in service",
        x_label="time since the first stage",
        y_label="layer groups",
        x_kind="seconds",
        from_zero=True,
        series=series,
        marks=deletion_marks(facts.history),
        caption="Red: a deletion was accepted. Blue: its certificate was written.",
    )
    return ReportSection(title=title, charts=(chart,))


def depth_series(history: Sequence[Event], shards: int) -> tuple[ChartSeries, ...]:
    """The mean depth, and the depth of each shard or the extremes, over seconds since the first event.

    A shard has depth 0 until its first event.
    """
    now = [0] * shards
    times: list[float] = []
    depths: list[list[int]] = []
    for seconds, event in _since_start(history):
        if event.kind == DEPTHS and event.shard is not None and 0 <= event.shard < shards:
            now[event.shard] = max(json.loads(event.detail)["depths"], default=0)
            times.append(seconds)
            depths.append(list(now))
    if not times:
        return ()
    points = thinned_to(list(zip(times, depths, strict=True)))
    at = tuple(time for time, _ in points)
    found = [ChartSeries(name="mean of shards", x=at, y=tuple(sum(d) / shards for _, d in points), style="steps")]
    if 1 < shards <= MOST_SHARDS_DRAWN:
        found += [
            ChartSeries(name=f"shard {shard}", x=at, y=tuple(float(d[shard]) for _, d in points), style="steps")
            for shard in range(shards)
        ]
    elif shards > 1:
        for name, of in (("shallowest shard", min), ("deepest shard", max)):
            found.append(ChartSeries(name=name, x=at, y=tuple(float(of(d)) for _, d in points), style="steps"))
    return tuple(found)


def deletion_marks(history: Sequence[Event]) -> tuple[ChartMark, ...]:
    """One mark per deletion and step, although the history has an event per affected shard."""
    marks: dict[tuple[object, str], ChartMark] = {}
    for seconds, event in _since_start(history):
        if event.kind == DEPTHS:
            continue
        accepted = event.kind == EventKind.DELETION_ACCEPTED
        request = json.loads(event.detail).get("request", event.seq)
        label = f"{'accepted' if accepted else 'certificate'}: {str(request)[:12]}"
        mark = ChartMark(x=seconds, label=label, kind="deletion" if accepted else "restored")
        marks.setdefault((request, event.kind), mark)
    return thinned_to(tuple(marks.values()), 200)


def _since_start(history: Iterable[Event]) -> Iterable[tuple[float, Event]]:
    start = None
    for event in history:
        moment = datetime.fromisoformat(event.at)
        start = start or moment
        yield (moment - start).total_seconds(), event


def _deletions(facts: ReportedRun) -> ReportSection:
    title = "Deletions and certificates"
    if not facts.deletions:
        return ReportSection(title=title, text=("No deletion has been requested.",))
    columns = (
        "request", "state", "records", "shards hit", "stages out of service", "accepted", "s to pruned", "s to purged",
        "s to restored", "certificate", "its entry in the log", "its signature",
    )  # fmt: skip
    table = ReportTable(
        stem="deletions",
        title="Each deletion",
        columns=columns,
        rows=tuple(_deletion_row(each) for each in facts.deletions),
        caption="Pruned: no replica answers from a stage that saw the record. Purged: all its bytes are erased. "
        "Restored: the pruned stages are retrained. Times in UTC; seconds since acceptance. "
        "`s3t certificate RUN REQUEST` prints a certificate, `s3t check-certificate` checks one without the run.",
    )
    return ReportSection(title=title, charts=_step_times(facts.deletions), tables=(table,))


def _deletion_row(found: DeletionFound) -> tuple[Cell, ...]:
    receipt, times, proof = found.row.receipt, found.row.times, found.certificate
    waits = tuple(_seconds(times.accepted, end) for end in (times.pruned, times.purged, times.restored))
    shards = len({hit.shard for hit in receipt.hits})
    facts = (
        receipt.request_id,
        found.row.state.value,
        receipt.records,
        shards,
        len(receipt.stages),
        times.accepted[:19],
    )
    return (*facts, *waits, proof.kind, proof.sequence, proof.check)


def _seconds(start: str, end: str | None) -> float | None:
    if end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _step_times(deletions: Sequence[DeletionFound]) -> tuple[ReportChart, ...]:
    series = []
    for name in ("pruned", "purged", "restored"):
        found = [
            (float(at), seconds)
            for at, each in enumerate(deletions, 1)
            if (seconds := _seconds(each.row.times.accepted, getattr(each.row.times, name))) is not None
        ]
        if found:
            points = thinned_to(found)
            x, y = (tuple(point[part] for point in points) for part in (0, 1))
            series.append(ChartSeries(name=name, x=x, y=y, style="points"))
    if not series:
        return ()
    chart = ReportChart(
        stem="deletion-times",
        title="How long each step took",
        x_label="deletion",
        y_label="seconds since acceptance",
        from_zero=True,
        series=tuple(series),
    )
    return (chart,)


def _quality(facts: ReportedRun, evaluations: Mapping[str, Evaluation]) -> ReportSection:
    title = "Quality"
    text: tuple[str, ...] = ()
    if not evaluations:
        text = (
            "There is no evaluation. Run `s3t eval RUN --json > eval.json`, then `s3t report RUN --eval eval.json`.",
        )
    charts = [_loss_by_depth(evaluations)] if evaluations else []
    if losses := _training_losses(facts.stages):
        charts.append(losses)
    tables = (_evaluation_table(evaluations),) if evaluations else ()
    return ReportSection(title=title, text=text, charts=tuple(charts), tables=tables)


def _loss_by_depth(evaluations: Mapping[str, Evaluation]) -> ReportChart:
    series = []
    for name, evaluation in evaluations.items():
        x = tuple(float(each.depth) for each in evaluation.by_depth)
        y = tuple(each.loss for each in evaluation.by_depth)
        error = tuple(1.96 * each.standard_error for each in evaluation.by_depth)
        low, high = (tuple(v + sign * e for v, e in zip(y, error, strict=True)) for sign in (-1, 1))
        series.append(ChartSeries(name=name, x=x, y=y, low=low, high=high))
    return ReportChart(
        stem="loss-by-depth",
        title="Held-out loss by depth",
        x_label="depth",
        y_label="loss",
        series=tuple(series),
        caption="Every shard limited to this depth. Bars: 95%. Depth 0 is the base model. After deletions a shard "
        "answers from a smaller depth.",
    )


def _evaluation_table(evaluations: Mapping[str, Evaluation]) -> ReportTable:
    metrics = sorted({name for each in evaluations.values() for name in each.live.metrics})
    rows: list[tuple[Cell, ...]] = []
    for name, evaluation in evaluations.items():
        for label, score in (("live", evaluation.live), *((f"depth {s.depth}", s) for s in evaluation.by_depth)):
            found = (score.metrics.get(metric) for metric in metrics)
            rows.append((name, label, evaluation.records, score.loss, score.standard_error, *found))
    columns = ("evaluation", "model", "records", "loss", "standard error", *metrics)
    return ReportTable(stem="quality", title="Held-out records", columns=columns, rows=tuple(rows))


def _training_losses(stages: Sequence[StageFound]) -> ReportChart | None:
    """The training losses of the deepest stages, from their manifests."""
    known = [each.manifest for each in stages if each.manifest is not None and len(each.manifest.losses) > 1]
    deepest = sorted(known, key=lambda manifest: (-manifest.depth, manifest.shard))[:MOST_LOSSES_DRAWN]
    if not deepest:
        return None
    series = []
    for manifest in deepest:
        points = thinned_to(list(enumerate(manifest.losses, 1)), 400)
        slices = " ".join(str(each.index) for each in manifest.slices)
        x, y = tuple(float(step) for step, _ in points), tuple(loss for _, loss in points)
        series.append(ChartSeries(name=f"shard {manifest.shard}, slices {slices}", x=x, y=y))
    return ReportChart(
        stem="training-loss", title="Training loss of the deepest live stages", x_label="step", y_label="loss",
        series=tuple(series),
    )  # fmt: skip


def _cost(facts: ReportedRun, price_per_hour: float | None) -> ReportSection:
    manifests = {each.row.id: each.manifest for each in facts.stages if each.manifest is not None}
    seconds = sum(manifest.seconds for manifest in manifests.values())
    rows: list[tuple[str, Cell]] = [
        ("Stages trained since the run was created", facts.stages_accepted),
        ("Live stages", len(facts.stages)),
        ("Training time of the live stages", seconds_text(seconds)),
        ("Training tokens of the live stages", sum(manifest.tokens for manifest in manifests.values())),
    ]
    rows += [(f"Stored bytes: {kind}", size) for kind, size in sorted(facts.stored_bytes.items())]
    if price_per_hour is not None:
        rows.append(("Price of the live stages", seconds / 3600 * price_per_hour))
    columns = ("request", "stages pruned", "stages retrained", "worker-group seconds", "minutes until restored")
    priced: tuple[str, ...] = () if price_per_hour is None else ("price",)
    lines: list[tuple[Cell, ...]] = []
    for each in facts.deletions:
        spent = sum(manifests[name].seconds for name in each.retrained if name in manifests)
        until = _seconds(each.row.times.accepted, each.row.times.restored)
        price: tuple[Cell, ...] = () if price_per_hour is None else (spent / 3600 * price_per_hour,)
        taken = len(each.row.receipt.stages)
        minutes = None if until is None else until / 60
        lines.append((each.row.receipt.request_id, taken, len(each.retrained), spent, minutes, *price))
    table = ReportTable(
        stem="deletion-cost",
        title="Cost of each deletion",
        columns=(*columns, *priced),
        rows=tuple(lines),
        caption="Counts the stages of the affected shards that were trained between receipt and certificate and are "
        "still live. Overlapping deletions share them; stages that a later deletion pruned are not counted.",
    )
    return ReportSection(
        title="Cost",
        facts=tuple(ReportFact(name=name, value=value) for name, value in rows),
        charts=_seconds_by_depth(manifests.values()),
        tables=(table,) if lines else (),
    )


def _seconds_by_depth(manifests: Iterable[Manifest]) -> tuple[ReportChart, ...]:
    """The chart of training time by depth, with one point per live stage."""
    points = sorted((float(manifest.depth), manifest.seconds) for manifest in manifests)
    if not points:
        return ()
    found = thinned_to(points)
    series = ChartSeries(name="a stage", x=tuple(x for x, _ in found), y=tuple(y for _, y in found), style="points")
    chart = ReportChart(
        stem="seconds-by-depth",
        title="Training time per stage",
        x_label="depth of the stage",
        y_label="seconds",
        from_zero=True,
        series=(series,),
    )
    return (chart,)
