"""How far what is public narrows down who was deleted: the config with its seed, a certificate, and even the ledger."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from s3t_ray.audit.membership_records import choose, live_models
from s3t_ray.config.schema import Config
from s3t_ray.data.partition import Place, place
from s3t_ray.data.records import Record
from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.run import deletion
from s3t_ray.run.input.ingest import ingest
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.same_keys import same_keys

CANDIDATES = [f"person {number}" for number in range(2000)]
MEMBERS = CANDIDATES[::20]
DELETED = MEMBERS[::7]


def lived(folder: Path, partition_key: str) -> Cluster:
    """A run of 20 slices from which people were deleted one by one; its keys are always the same."""
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"record of {name}", name) for name in MEMBERS])
    same_keys(folder / "run.keys")
    data = {
        "path": str(folder / "data.jsonl"),
        "subject_field": "subject",
        "partition_by": "subject",
        "partition_key": partition_key,
        "holdout": 0.1,
    }
    cluster = Cluster(small_config(folder, shards=4, slices=5, budget=1, data=data))
    for name in DELETED:
        deletion.accept(cluster.run, [], [name])
        cluster.settle()
    return cluster


def left_by_certificates(cluster: Cluster) -> list[list[str]]:
    """For each deletion, the candidates of whom its certificate can be, for who knows the config alone."""
    found = []
    for entry in cluster.run.ledger.log((EntryKind.CERTIFICATE,)):
        hit = {Place(change["shard"], change["slice"]) for change in json.loads(entry.text)["facts"]["slices"]}
        found.append([name for name in CANDIDATES if guessed(name, cluster.run.config) in hit])
    return found


def left_by_ledger(cluster: Cluster) -> list[str]:
    """The candidates of whom a purged row of the ledger can be."""
    with closing(sqlite3.connect(Path(cluster.run.config.storage.uri) / "ledger.db")) as database:
        rows = database.execute("SELECT shard, slice FROM s3t_records WHERE deletion IS NOT NULL").fetchall()
    deleted = {Place(*row) for row in rows}
    return [name for name in CANDIDATES if guessed(name, cluster.run.config) in deleted]


def guessed(name: str, config: Config) -> Place:
    return place(f"record of {name}", name, config, None)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return lived(tmp_path_factory.mktemp("secret"), "secret")


def test_under_the_seed_alone_a_certificate_leaves_few_and_the_right_one(tmp_path: Path) -> None:
    """What `partition_key: seed` costs, and why it is not the default: the measure can see it."""
    cluster = lived(tmp_path, "seed")
    left = left_by_certificates(cluster)
    assert all(name in names for name, names in zip(DELETED, left, strict=True))
    assert max(map(len, left)) <= 0.12 * len(CANDIDATES)  # a slice in twenty, or the held-out tenth
    assert set(DELETED) <= set(left_by_ledger(cluster))


def test_under_a_secret_a_certificate_leaves_nobody_more_likely_than_another(secret: Cluster) -> None:
    left = left_by_certificates(secret)
    right = sum(name in names for name, names in zip(DELETED, left, strict=True))
    by_chance = sum(map(len, left)) / len(CANDIDATES)
    assert by_chance < 1  # of the 15: one slice of twenty each
    assert right <= 2


def test_under_a_secret_the_ledger_rules_out_those_who_were_deleted_as_often_as_others(secret: Cluster) -> None:
    left = set(left_by_ledger(secret))
    share = len(left) / len(CANDIDATES)
    assert abs(len(left & set(DELETED)) / len(DELETED) - share) < 0.3
    assert 0.2 < share < 0.8


def test_a_run_keeps_the_partition_that_it_began_with(secret: Cluster, tmp_path: Path) -> None:
    """Nothing is placed again: neither by another config nor by a later reading of the same data."""
    run = secret.run
    before = run.ledger.slices()
    data = run.config.data.model_copy(update={"partition_key": "seed"})
    again = type(run).create(run.config.model_copy(update={"data": data}))
    ingest(again, lambda line: None)
    assert again.ledger.slices() == before
    name = next(name for name in MEMBERS if name not in DELETED)
    spot = again.ledger.record_states([again.keys.id_hmac(f"record of {name}")])[
        again.keys.id_hmac(f"record of {name}")
    ]
    assert Place(spot.shard, spot.slice) == place(f"record of {name}", name, again.config, again.keys.place_key)
    text = json.dumps(
        {"input": "", "instruction": f"say record of {name}", "output": f"this is record of {name}"},
        sort_keys=True,
        separators=(",", ":"),
    )
    named = (Record(f"record of {name}", name, text),)
    chosen = choose(again, live_models(again, named, 0), named, 100, seed=0)  # refuses what it takes for misplaced
    assert chosen.known.given == 1
    again.close()
