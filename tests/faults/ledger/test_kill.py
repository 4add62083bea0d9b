"""SIGKILL at every step of a ledger's life: everything acknowledged exists, and nothing is incomplete."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from threading import Event

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.proof.run_log import verify_chain
from tests.faults.ledger import children
from tests.unit.ledger.certify import PEM, opened
from tests.unit.ledger.world import PLACES, RUN, Clock, entries


def prepare(url: str) -> str:
    with opened(url, create=True, clock=Clock()) as ledger:
        ledger.ingest(RUN, entries())
    return url


def everything(ledger: Ledger) -> tuple[object, ...]:
    """The complete readable state of a ledger."""
    tombstones = [ledger.tombstones(*place) for place in PLACES]
    story = ledger.slices(), ledger.stages(), ledger.deletions(), ledger.events()
    # Random, another in each life: the name of the run, the nonces of receipts, and the hashes of what holds them.
    random = {"run_id", "previous", "commitment", "receipt"}
    certificates = [made.facts.model_dump(exclude=random) for made in ledger.certificates()]
    return (*story, certificates, ledger.lease(), tombstones)


def outcome(ledger: Ledger) -> tuple[object, ...]:
    """The same, without what a repeated step may change: times, events, the epoch."""
    return (
        [(state.shard, state.slice, state.records, state.digest, state.file) for state in ledger.slices()],
        [(row.id, row.state) for row in ledger.stages()],
        [(row.receipt.request_id, row.receipt.hits, row.receipt.stages, row.state) for row in ledger.deletions()],
        [certificate.facts.slices for certificate in ledger.certificates()],
    )


def test_killed_at_any_moment(new_url: Callable[[], str], processes: ForkServerContext, tmp_path: Path) -> None:
    """The state equals that of an uninterrupted life with all acknowledged steps, or one more."""
    states = []
    with opened(prepare(new_url()), clock=Clock()) as ledger:
        states.append(everything(ledger))
        for step in children.life(ledger):
            step()
            states.append(everything(ledger))
        finished = outcome(ledger)
    lines = run(processes, prepare(new_url()), tmp_path / "whole", 0)
    ends = [0, *(int(line.split()[1]) for line in lines)]
    assert len(ends) == len(states)
    torn = set()
    for number, kill_at in enumerate(moments_to_try(ends, server="postgres" in new_url())):
        url = prepare(new_url())
        lines = run(processes, url, tmp_path / f"killed at {kill_at}", kill_at)
        done = len(lines)
        with opened(url, clock=Clock()) as ledger:
            found = everything(ledger)
            assert found in (states[done], states[done + 1]), f"killed at {kill_at} after {done} steps"
            torn.add(found == states[done])
            if number % 4:
                continue
            for step in children.life(ledger)[done:]:
                step()
            assert outcome(ledger) == finished, f"killed at {kill_at}"
            verify_chain([row.text for row in ledger.log()], PEM, ledger.log_head())
    assert torn == {True, False}


def moments_to_try(ends: list[int], server: bool) -> list[int]:
    """Every moment of accepting a deletion, and a sample of the others, out of step with the transactions.

    A sample of all where a server has the data: a client that is gone is one thing to it.
    """
    if server:
        around_commits = {ends[step + 1] - before for step in children.ACCEPTING for before in (2, 1, 0)}
        return sorted(around_commits.union(range(1, ends[-1] + 1, 23)))
    accepting = {moment for step in children.ACCEPTING for moment in range(ends[step] + 1, ends[step + 1] + 1)}
    return sorted(accepting.union(range(1, ends[-1] + 1, 9)))


def run(processes: ForkServerContext, url: str, acknowledged: Path, kill_at: int) -> list[str]:
    """Run a life in a separate process. Returns the acknowledged lines."""
    child = processes.Process(target=children.live, args=(url, acknowledged, kill_at))
    child.start()
    child.join()
    assert child.exitcode == (-signal.SIGKILL if kill_at else 0)
    return acknowledged.read_text().splitlines() if acknowledged.exists() else []


def test_killed_from_outside(new_url: Callable[[], str], processes: ForkServerContext, tmp_path: Path) -> None:
    """At random times during deletions; a new process continues where the last one died."""
    url = prepare(new_url())
    acknowledged = tmp_path / "acknowledged"
    acknowledged.touch()
    names = children.all_records()
    patience = Event()
    there: set[str] = set()
    for kills in range(1, 7):
        before = len(acknowledged.read_text().splitlines())
        endless = names[len(there) :] + names * 1000
        child = processes.Process(target=children.delete_one_by_one, args=(url, acknowledged, endless))
        child.start()
        while child.exitcode is None and len(acknowledged.read_text().splitlines()) < before + 3:
            patience.wait(0.001)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        with opened(url) as ledger:
            there = {row.receipt.request_id for row in ledger.deletions()}
        said = set(acknowledged.read_text().splitlines())
        assert said <= there
        assert len(there) <= len(said) + kills  # each may have committed one more than it could say
    children.delete_one_by_one(url, acknowledged, names)
    with opened(url) as ledger:
        assert {state.records for state in ledger.slices()} == {0}
        assert len(ledger.deletions()) == len(names)
