"""The metrics that the nodes of a test's cluster export to Prometheus."""

from __future__ import annotations

import re
import urllib.request

from tests.cluster.raylets import Raylets


def scrape(cluster: Raylets) -> dict[str, float]:
    """Our metrics, as Prometheus reads them from the nodes: name, or name{state or shard}, to value."""
    read = {}
    for port, node in zip(cluster.metrics, cluster.processes, strict=True):
        if node.poll() is not None:
            continue
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith("ray_s3t_")]
        for line in lines:
            labels, value = line.rsplit(" ", 1)
            assert 'run="jobs"' in labels
            mark = re.search(r'(?:state|shard)="(\w+)"', labels)
            read[labels.partition("{")[0] + (f"{{{mark[1]}}}" if mark else "")] = float(value)
    return read
