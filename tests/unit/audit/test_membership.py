"""The membership audit on a tiny Llama that really memorizes: it finds members, then no trace of deleted records.

The texts are random, so nobody can predict one without having seen it. Trained once, before and after a deletion,
and once more without the deleted person: the audit of the healed run must be that of the run that never saw her.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from s3t_ray.audit.membership import audit_membership
from s3t_ray.audit.membership_report import Finding, GroupResult, MembershipAudit
from s3t_ray.config.load import parse_config
from s3t_ray.data.partition import place
from s3t_ray.errors import ConfigError
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from s3t_ray.scheduler.requeue import stage_job
from s3t_ray.train.trainer import Trainer
from tests.fakes import FakeShards
from tests.tiny import tiny_llama

ANN = "ann"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def rows(subjects: Sequence[str], records: int, seed: int) -> list[dict[str, str]]:
    chance = Random(seed)
    return [
        {
            "id": f"{subject}-{index}",
            "subject": subject,
            "instruction": f"secret {index}",
            "output": "".join(chance.choices(LETTERS, k=10)),
        }
        for subject in subjects
        for index in range(records)
    ]


def write(path: Path, records: Sequence[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


PEOPLE = [f"p{index}" for index in range(10)]
DATA = [*rows(PEOPLE, 4, seed=1), *rows([ANN], 6, seed=2)]
HELD_OUT = rows(["nobody"], 30, seed=3)


def begin(root: Path, base: Path, records: Sequence[dict[str, str]]) -> Run:
    """A run of 2 shards x 2 slices over `records`, with its data read and nothing trained."""
    root.mkdir()
    document = {
        "name": "audited",
        "shards": 2,
        "slices": 2,
        "budget": 1,
        "model": {"path": str(base)},
        "task": {"prompt": "plain"},
        "data": {
            "path": str(write(root / "data.jsonl", records)),
            "holdout_path": str(write(root / "holdout.jsonl", HELD_OUT)),
            "subject_field": "subject",
            "partition_by": "subject",
            "partition_key": "seed",
        },
        "lora": {"rank": 16, "layers_per_group": 2},
        "optimizer": {"lr": 7e-3, "epochs": 40, "batch_records": 16},
        "storage": {"uri": str(root / "run")},
    }
    run = Run.create(parse_config(json.dumps(document), "test"))
    ingest(run, lambda line: None)
    return run


def train(run: Run) -> None:
    """Every stage that is missing, in this process."""
    epoch = run.ledger.take_lease("test")
    trainer = Trainer(run.config, run.base, run.store, Path(run.location.storage_uri) / "tmp-scratch")
    for shard in range(run.row.shards):
        view = view_shard(run, shard)
        digests = {state.slice: state.digest for state in view.slices}
        for stage in sorted(view.plan.stages.values(), key=lambda stage: stage.depth):
            if stage.id not in view.live:
                done = trainer.train(stage_job(run, view, stage), lambda progress: None, lambda: False)
                learned = {index: digests[index] for index in stage.slices}
                assert run.ledger.accept_stage(epoch, stage, done.adapter_sha256, learned)


def forget(run: Run, subject: str) -> None:
    """Delete a person, purge, and train again."""
    run.ledger.accept_deletion((), [run.keys.subject_hmac(subject)])
    shards = FakeShards(run, run.ledger.take_lease("test"))
    for shard in range(run.row.shards):
        shards.start_purge(shard, ())
    assert all(not isinstance(view, Exception) for view in shards.finished_purges().values())
    train(run)


@dataclass(frozen=True)
class Story:
    before: MembershipAudit
    after: MembershipAudit
    never: MembershipAudit
    """Of the run that never saw Ann."""
    run: Run


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("audited")
    base = tiny_llama(root / "base", layers=5, hidden=64)
    handed_in = write(root / "ann.jsonl", [record for record in DATA if record["subject"] == ANN])
    with begin(root / "with", base, DATA) as run:
        train(run)
        before = audit_membership(run, records=handed_in)
        forget(run, ANN)
        after = audit_membership(run, records=handed_in)
        without = [record for record in DATA if record["subject"] != ANN]
        with begin(root / "without", base, without) as other:
            train(other)
            never = audit_membership(other, records=handed_in)
        yield Story(before, after, never, run)


def auc(group: GroupResult | None) -> float:
    assert group is not None
    return group.auc.value


def test_the_attack_finds_members_and_only_under_the_model_that_learned_them(story: Story) -> None:
    for audit in (story.before, story.after, story.never):
        assert audit.retained.auc.low > 0.85
        assert audit.other_shards is not None
        assert audit.other_shards.auc.low < 0.5 < audit.other_shards.auc.high
        assert audit.never_seen == len(HELD_OUT)
        assert [result.attack for result in audit.retained.attacks] == ["reference_loss", "min_k", "min_k_reference"]
        assert [model.shard for model in audit.models] == [0, 1]
        assert all(sorted(model.slices) == [0, 1] for model in audit.models)


def test_a_person_shows_before_the_deletion_and_no_more_after_it(story: Story) -> None:
    assert auc(story.before.named) > 0.9
    assert story.before.finding is Finding.ABOVE_NEVER_SEEN
    assert not story.before.unexplained  # she is retained, so it is to be expected
    assert story.after.named is not None
    assert story.after.named.auc.low < 0.5 < story.after.named.auc.high
    assert story.before.named_other_shards is not None
    assert story.before.named_other_shards.auc.low < 0.5  # under the model that never saw her
    assert story.after.named.auc.high < story.after.retained.auc.low
    assert story.after.finding is Finding.AS_NEVER_SEEN


def test_after_the_deletion_the_audit_is_that_of_a_run_that_never_saw_her(story: Story) -> None:
    assert story.after.named == story.never.named
    assert story.after.retained == story.never.retained
    assert story.after.other_shards == story.never.other_shards
    assert story.after.named_other_shards == story.never.named_other_shards
    assert story.after.finding == story.never.finding


def test_the_run_knows_whose_records_were_handed_in(story: Story) -> None:
    for audit, status in ((story.before, "retained"), (story.after, "deleted"), (story.never, "unknown")):
        told = audit.named_records
        assert told is not None
        assert (told.given, getattr(told, status)) == (6, 6)
        assert told.seen == (6 if audit is story.before else 0)


def test_a_retained_person_is_found_and_her_own_sample_left_out(story: Story, tmp_path: Path) -> None:
    mine = [record for record in DATA if record["subject"] == PEOPLE[0]]
    audit = audit_membership(story.run, records=write(tmp_path / "mine.jsonl", mine))
    assert auc(audit.named) > 0.9
    alone = audit_membership(story.run)
    assert (alone.finding, alone.named, alone.named_records) == (Finding.POWER_ONLY, None, None)
    assert audit.retained.records == alone.retained.records - len(mine)


def test_records_of_a_dead_shard_have_no_model_to_ask(story: Story, tmp_path: Path) -> None:
    """Last: it ends the run's life."""
    run = story.run
    shard = place("ann-0", ANN, run.config, None).shard
    run.ledger.mark_stale(run.ledger.take_lease("test"), run.live_stages(shard))
    handed_in = write(tmp_path / "ann.jsonl", [record for record in DATA if record["subject"] == ANN])
    audit = audit_membership(run, records=handed_in)
    assert [model.shard for model in audit.models] == [1 - shard]
    assert audit.other_shards is audit.named_other_shards is None  # a single model: the base model is the reference
    assert audit.retained.auc.low > 0.8
    assert audit.named is None and audit.named_records is not None
    assert audit.named_records.no_model == 6
    assert "None of the submitted records could be tested" in audit.conclusion


def test_a_sample_too_small_is_refused(story: Story) -> None:
    with pytest.raises(ConfigError, match="2 records or more"):
        audit_membership(story.run, sample=1)
