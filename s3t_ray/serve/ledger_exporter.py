"""Prometheus metrics of runs, read from their ledgers: available without a scheduler or Ray.

In: open runs. Out: at each scrape, the gauges that need no scheduler, with the names that Ray gives them, so that one
alert covers both; whether the ledger could be read; and the scheduler's heartbeats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from s3t_ray.errors import ClusterError, LedgerError
from s3t_ray.run.run import Run
from s3t_ray.scheduler.metrics import FROM_LEDGER, GAUGES, Figures, measure_ledger

PREFIX = "ray_"
"""Ray's prefix for exported metrics."""


class LedgerExporter(Collector):
    """Reads the ledgers of these runs at each scrape."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics now. A ledger that cannot be read reports `s3t_ledger_up` 0 and nothing else of its run."""
        up = GaugeMetricFamily(f"{PREFIX}s3t_ledger_up", "1: the run's ledger could be read.", labels=["run"])
        beats = CounterMetricFamily(
            f"{PREFIX}s3t_scheduler_beats", "Heartbeats of schedulers: one that stands still is none.", labels=["run"]
        )
        read: dict[str, Figures] = {}
        for run in self._runs:
            name = run.config.name
            try:
                read[name] = measure_ledger(run, datetime.now(UTC))
                beats.add_metric([name], run.ledger.lease().beats)
            except LedgerError:
                read.pop(name, None)
            up.add_metric([name], name in read)
        yield up
        yield beats
        for gauge in FROM_LEDGER:
            text, labels = GAUGES[gauge]
            family = GaugeMetricFamily(f"{PREFIX}{gauge}", text, labels=labels)
            for name, figures in read.items():
                for sample in figures.samples():
                    if sample.name == gauge:
                        family.add_metric([{"run": name, **sample.labels}[label] for label in labels], sample.value)
            yield family


def start_exporter(runs: Sequence[Run], host: str, port: int) -> int:
    """Serve the metrics of these runs from a thread. Returns the port. ClusterError: it is in use."""
    registry = CollectorRegistry()
    registry.register(LedgerExporter(runs))
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ClusterError(
            f"cannot listen on {host}:{port}: {error.strerror}", "choose another --port or --host"
        ) from error
    return int(server.server_port)
