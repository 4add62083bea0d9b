"""The ledger against a simple model in memory, over random histories, on both databases.

After every step: nothing acknowledged is lost, states only moved forward, a slice's digest is that of
its retained records, live stages are exactly those the model says and all follow from the data, and a
fenced scheduler changed nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from s3t_ray.errors import LedgerError, UnknownRecords
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.values import DeletionState, Fenced, Receipt, RecordEntry, StageState
from s3t_ray.plan.stages import Stage
from tests.unit.ledger.certify import certify, opened
from tests.unit.ledger.world import PLACES, RUN, SHARDS, adapter, digests, entries, name, plan

RECORDS = {row.id_hmac: row for row in entries()}
IDS = [*sorted(RECORDS), name("id", "stranger")]
SUBJECTS = [name("subject", "ann"), name("subject", "at 0.1"), name("subject", "stranger")]
STATES = list(DeletionState)


@dataclass
class Request:
    """A deletion that was acknowledged."""

    receipt: Receipt
    places: set[tuple[int, int]]
    earlier: set[int]
    state: DeletionState = DeletionState.ACCEPTED


@dataclass
class Model:
    """What a ledger is, as plain as can be."""

    deleted_by: dict[bytes, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    by_names: dict[tuple[frozenset[bytes], frozenset[bytes]], int] = field(default_factory=dict)
    states: dict[str, StageState] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)
    clean: dict[tuple[int, int], int] = field(default_factory=dict)  # requests before this one are not in the file
    accepted_before: dict[str, int] = field(default_factory=dict)  # requests there were when the stage was accepted
    certificates: int = 0

    def records(self, place: tuple[int, int]) -> list[RecordEntry]:
        return [
            row for row in RECORDS.values() if (row.shard, row.slice) == place and row.id_hmac not in self.deleted_by
        ]

    def may_be_purged(self, number: int) -> bool:
        places = self.requests[number].places
        return all(self.clean.get(place, -1) > number for place in places) and not any(
            state is not StageState.PURGED
            and self.accepted_before[stage] <= number
            and any((self.stages[stage].shard, index) in places for index in self.stages[stage].slices)
            for stage, state in self.states.items()
        )

    def may_move(self, number: int, state: DeletionState) -> bool:
        request = self.requests[number]
        return (
            state.rank == request.state.rank + 1
            and all(self.requests[earlier].state.rank >= state.rank for earlier in request.earlier)
            and (state is not DeletionState.PURGED or self.may_be_purged(number))
        )


class LedgerMachine(RuleBasedStateMachine):
    """`new_url` is set by the test: where the next history's ledger can be made."""

    new_url: Callable[[], str]

    @initialize()
    def begin(self) -> None:
        self.url = type(self).new_url()
        self.ledger = opened(self.url, create=True)
        self.ledger.ingest(RUN, entries())
        self.epoch = self.ledger.take_lease("first")
        self.model = Model()

    @rule(ids=st.sets(st.sampled_from(IDS), max_size=3), subjects=st.sets(st.sampled_from(SUBJECTS), max_size=1))
    def delete(self, ids: set[bytes], subjects: set[bytes]) -> None:
        if not ids and not subjects:
            return
        model = self.model
        named = {key for key, row in RECORDS.items() if key in ids or row.subject_hmac in subjects}
        if not named:
            with pytest.raises(UnknownRecords):
                self.ledger.accept_deletion(list(ids), list(subjects))
            return
        answer = self.ledger.accept_deletion(list(ids), list(subjects))
        names = frozenset(ids), frozenset(subjects)
        if names in model.by_names:
            assert answer.repeated
            assert answer.receipt == model.requests[model.by_names[names]].receipt
            return
        number = len(model.requests)
        fresh = {key for key in named if key not in model.deleted_by}
        places = {(RECORDS[key].shard, RECORDS[key].slice) for key in fresh}
        request = Request(answer.receipt, places, {model.deleted_by[key] for key in named - fresh})
        stale = {
            stage
            for stage, state in model.states.items()
            if state is StageState.LIVE
            and any((model.stages[stage].shard, index) in places for index in model.stages[stage].slices)
        }
        receipt = answer.receipt
        assert (receipt.records, receipt.already_deleted) == (len(fresh), len(named - fresh))
        assert {(hit.shard, hit.slice) for hit in receipt.hits} == places
        assert set(receipt.stages) == stale
        model.deleted_by.update(dict.fromkeys(fresh, number))
        model.states.update(dict.fromkeys(stale, StageState.STALE))
        model.requests.append(request)
        model.by_names[names] = number

    @rule(shard=st.integers(0, SHARDS - 1), pick=st.integers(0, 5), late=st.sets(st.sampled_from(IDS), max_size=1))
    def train(self, shard: int, pick: int, late: set[bytes]) -> None:
        """A stage is trained; a deletion may come in the middle."""
        wanted = sorted(plan(self.ledger, shard).stages.values(), key=lambda stage: (stage.depth, stage.slices))
        stage = wanted[pick % len(wanted)]
        trained_on = digests(self.ledger, shard)
        self.delete(late, set())
        still = stage.id in plan(self.ledger, shard).stages
        expected = still and all(self.model.states.get(name) is StageState.LIVE for name in stage.ancestors)
        assert self.ledger.accept_stage(self.epoch, stage, adapter(stage), trained_on) == expected
        if expected and self.model.states.get(stage.id) is not StageState.LIVE:
            self.model.states[stage.id] = StageState.LIVE
            self.model.stages[stage.id] = stage
            self.model.accepted_before[stage.id] = len(self.model.requests)

    @rule(pick=st.integers(0, 20))
    def take_out(self, pick: int) -> None:
        live = sorted(stage for stage, state in self.model.states.items() if state is StageState.LIVE)
        if not live:
            return
        chosen = live[pick % len(live)]
        gone = {stage for stage in live if chosen in self.model.stages[stage].chain}
        assert set(self.ledger.mark_stale(self.epoch, [chosen])) == gone
        self.model.states.update(dict.fromkeys(gone, StageState.STALE))

    @rule()
    def erase_stages(self) -> None:
        stale = [stage for stage, state in self.model.states.items() if state is StageState.STALE]
        self.ledger.mark_purged(self.epoch, stale)
        self.model.states.update(dict.fromkeys(stale, StageState.PURGED))

    @rule(places=st.sets(st.sampled_from(PLACES), min_size=1))
    def write_slices(self, places: set[tuple[int, int]]) -> None:
        for state in self.ledger.slices():
            if (state.shard, state.slice) in places:
                self.ledger.set_slice_file(self.epoch, state.shard, state.slice, "file", "c" * 64, state.digest)
                self.model.clean[state.shard, state.slice] = len(self.model.requests)

    @rule(pick=st.integers(0, 20), state=st.sampled_from(STATES))
    def advance(self, pick: int, state: DeletionState) -> None:
        if not self.model.requests:
            return
        number = pick % len(self.model.requests)
        request = self.model.requests[number]
        if state is request.state:
            self.ledger.advance(self.epoch, request.receipt.request_id, state)
        elif not self.model.may_move(number, state):
            with pytest.raises(LedgerError):
                self.ledger.advance(self.epoch, request.receipt.request_id, state)
        elif state is DeletionState.RESTORED:
            certify(self.ledger, self.epoch, request.receipt.request_id)
            self.model.certificates += 1
            request.state = state
        else:
            self.ledger.advance(self.epoch, request.receipt.request_id, state)
            request.state = state

    @rule()
    def heal(self) -> None:
        """A scheduler's whole pass, so that histories reach the end of a deletion."""
        self.erase_stages()
        self.write_slices(set(PLACES))
        for state in STATES[1:]:
            for number, request in enumerate(self.model.requests):
                if request.state.rank == state.rank - 1:
                    self.advance(number, state)

    @rule()
    def replace_scheduler(self) -> None:
        old = self.epoch
        self.epoch = self.ledger.take_lease("next")
        for attempt in (lambda: self.ledger.mark_purged(old, []), lambda: self.ledger.beat(old)):
            with pytest.raises(Fenced):
                attempt()

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = opened(self.url)

    @invariant()
    def slices_are_their_retained_records(self) -> None:
        for state in self.ledger.slices():
            kept = self.model.records((state.shard, state.slice))
            lthash = LtHash16()
            lthash.add(row.digest for row in kept)
            assert (state.records, state.digest) == (len(kept), lthash.digest())

    @invariant()
    def tombstones_are_what_files_still_hold(self) -> None:
        for place in PLACES[:3]:
            clean = self.model.clean.get(place, 0)
            assert self.ledger.tombstones(*place) == {
                RECORDS[key].digest
                for key, number in self.model.deleted_by.items()
                if (RECORDS[key].shard, RECORDS[key].slice) == place and number >= clean
            }

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        rows = self.ledger.deletions()
        assert [(row.receipt, row.state) for row in rows] == [(r.receipt, r.state) for r in self.model.requests]
        assert len(self.ledger.certificates()) == self.model.certificates

    @invariant()
    def stages_are_those_of_the_model(self) -> None:
        rows = {row.id: row for row in self.ledger.stages()}
        assert {key: row.state for key, row in rows.items()} == self.model.states
        for shard in range(SHARDS):
            wanted = plan(self.ledger, shard).stages
            live = {row.id for row in rows.values() if row.shard == shard and row.state is StageState.LIVE}
            assert live <= set(wanted)
            assert all(live.issuperset(wanted[stage].ancestors) for stage in live)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()


COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], stateful_step_count=25)


def test_sqlite_equals_the_model(tmp_path: Path) -> None:
    folders: list[Path] = []

    class Machine(LedgerMachine):
        @staticmethod
        def new_url() -> str:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            folders[:] = [Path(tempfile.mkdtemp(dir=tmp_path))]
            return f"sqlite:///{folders[0] / 'ledger.db'}"

    run_state_machine_as_test(Machine, settings=settings(COMMON, max_examples=20))


def test_postgres_equals_the_model(fresh_postgres: Callable[[], str]) -> None:
    class Machine(LedgerMachine):
        new_url = staticmethod(fresh_postgres)

    run_state_machine_as_test(Machine, settings=settings(COMMON, max_examples=8))
