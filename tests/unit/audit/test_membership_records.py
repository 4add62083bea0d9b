"""The records that the audit tests, and what the run knows about submitted ones; models are hashes here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from s3t_ray.audit import membership_records
from s3t_ray.audit.membership_records import choose, live_models, read_named
from s3t_ray.data.partition import HOLDOUT, place
from s3t_ray.data.records import Record
from s3t_ray.errors import ConfigError, DataError
from tests.fakes import Cluster, fake_base, small_config, write_records

PEOPLE = [(f"r{index}", f"p{index % 12}") for index in range(60)]


def content(name: str) -> str:
    return json.dumps(
        {"input": "", "instruction": f"say {name}", "output": f"this is {name}"}, sort_keys=True, separators=(",", ":")
    )


def records(names: Iterable[str]) -> tuple[Record, ...]:
    subjects = dict(PEOPLE)
    return tuple(Record(name, subjects[name], content(name)) for name in names)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", PEOPLE)
    data = {"path": str(tmp_path / "data.jsonl"), "subject_field": "subject", "partition_by": "subject", "holdout": 0.2}
    made = Cluster(small_config(tmp_path, data=data))
    made.settle()
    return made


def by_place(cluster: Cluster) -> dict[int, list[str]]:
    """Ids by shard; -1 is held out."""
    found: dict[int, list[str]] = {}
    for name, subject in PEOPLE:
        found.setdefault(place(name, subject, cluster.run.config, None).shard, []).append(name)
    assert set(found) == {-1, 0, 1}  # else the tests here could not fail
    return found


def delete(cluster: Cluster, names: Iterable[str]) -> None:
    cluster.run.ledger.accept_deletion([cluster.run.keys.id_hmac(name) for name in names])


def test_samples_are_retained_and_held_out_records_at_their_own_shard(cluster: Cluster) -> None:
    models = live_models(cluster.run, (), seed=0)
    assert [(model.shard, len(model.chain), sorted(model.slices)) for model in models] == [
        (0, 3, [0, 1, 2]),
        (1, 3, [0, 1, 2]),
    ]
    chosen = choose(cluster.run, models, (), sample=1000, seed=0)
    places = by_place(cluster)
    assert sorted(chosen.never_seen) == sorted(content(name) for name in places[-1])
    for shard in (0, 1):
        own = sorted(asked.content for asked in chosen.retained if asked.shard == shard)
        assert own == sorted(content(name) for name in places[shard])
    few = choose(cluster.run, models, (), sample=5, seed=0)
    assert (len(few.never_seen), len(set(few.retained))) == (5, 5)
    assert few == choose(cluster.run, models, (), sample=5, seed=0)
    assert few != choose(cluster.run, models, (), sample=5, seed=1)


def test_records_handed_in_are_told_apart_and_kept_out_of_the_samples(cluster: Cluster) -> None:
    places = by_place(cluster)
    gone = places[0][:2]
    delete(cluster, gone)
    cluster.settle()
    named = (
        *records([*gone, *places[1][:3], places[-1][0]]),
        Record("stranger", "nobody", content("stranger")),
        Record(places[0][-1], dict(PEOPLE)[places[0][-1]], content("another text")),
    )
    chosen = choose(cluster.run, live_models(cluster.run, named, 0), named, 1000, seed=0)
    known = chosen.known
    assert (known.given, known.deleted, known.retained, known.seen, known.changed) == (8, 2, 4, 4, 1)
    stranger_is_held_out = place("stranger", "nobody", cluster.run.config, None) == HOLDOUT
    assert (known.unknown, known.held_out) == ((0, 2) if stranger_is_held_out else (1, 1))
    texts = {record.content for record in named}
    assert not texts & {*chosen.never_seen, *(asked.content for asked in chosen.retained)}
    asked = {record.content: record.shard for record in chosen.named}
    assert content(places[-1][0]) not in asked
    assert all(asked[content(name)] == 0 for name in gone)
    assert all(asked[content(name)] == 1 for name in places[1][:3])


def test_a_deleted_record_counts_as_deleted_before_its_row_is_gone(cluster: Cluster) -> None:
    gone = by_place(cluster)[0][:1]
    delete(cluster, gone)  # and nothing was purged
    models = live_models(cluster.run, records(gone), 0)
    known = choose(cluster.run, models, records(gone), 1000, seed=0).known
    assert (known.deleted, known.retained, known.seen) == (1, 0, 0)


def test_only_what_the_live_model_learned_is_a_member(cluster: Cluster) -> None:
    gone = by_place(cluster)[0][0]
    delete(cluster, [gone])  # one sequence of the shard is left shallower, the other may be dead
    (model,) = [model for model in live_models(cluster.run, (), 0) if model.shard == 0]
    lost = place(gone, dict(PEOPLE)[gone], cluster.run.config, None).slice
    assert lost not in model.slices and model.slices
    chosen = choose(cluster.run, [model], (), 1000, seed=0)
    inside = {
        content(name)
        for name, subject in PEOPLE
        if (spot := place(name, subject, cluster.run.config, None)).shard == 0 and spot.slice in model.slices
    }
    assert {asked.content for asked in chosen.retained} == inside


def test_equal_content_elsewhere_is_counted(cluster: Cluster) -> None:
    places = by_place(cluster)
    delete(cluster, [places[0][0]])
    cluster.settle()
    twin = Record(places[0][0], dict(PEOPLE)[places[0][0]], content(places[1][0]))
    assert choose(cluster.run, live_models(cluster.run, (), 0), (twin,), 1000, 0).known.equal_elsewhere == 1


def test_wrong_subjects_are_refused_before_they_mislead(cluster: Cluster) -> None:
    places, models = by_place(cluster), live_models(cluster.run, (), 0)
    name, elsewhere = places[0][0], dict(PEOPLE)[places[1][0]]
    wrong = (Record(name, elsewhere, content(name)),)
    with pytest.raises(DataError, match="1 of the named records are in other slices"):
        choose(cluster.run, models, wrong, 1000, 0)
    delete(cluster, [name])
    with pytest.raises(DataError, match="1 of the named records are in other slices"):
        choose(cluster.run, live_models(cluster.run, (), 0), wrong, 1000, 0)


def test_a_run_without_models_or_held_out_records_is_refused(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", PEOPLE)
    cluster = Cluster(small_config(tmp_path))
    with pytest.raises(ConfigError, match="no shard has a live model"):
        live_models(cluster.run, (), 0)
    cluster.settle()
    with pytest.raises(DataError, match="no held-out records"):
        choose(cluster.run, live_models(cluster.run, (), 0), (), 1000, 0)


def test_of_many_shards_those_of_the_named_records_come_first(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership_records, "MOST_MODELS", 1)
    for shard in (0, 1):
        named = records(by_place(cluster)[shard][:1])
        assert [model.shard for model in live_models(cluster.run, named, seed=0)] == [shard]
    assert len(live_models(cluster.run, (), seed=0)) == 1


def test_a_file_of_records_is_read_as_the_runs_data(cluster: Cluster, tmp_path: Path) -> None:
    path = write_records(tmp_path / "handed-in.jsonl", PEOPLE[:3])
    assert read_named(cluster.run, path) == records(name for name, _ in PEOPLE[:3])
    with pytest.raises(DataError, match="id 'r1' is in more than one record"):
        read_named(cluster.run, write_records(path, [("r1", "a"), ("r1", "b")]))
    with pytest.raises(DataError, match="no such file"):
        read_named(cluster.run, tmp_path / "gone.jsonl")
    path.write_text('{"id": "r1"}\n')
    with pytest.raises(DataError, match="malformed"):
        read_named(cluster.run, path)
