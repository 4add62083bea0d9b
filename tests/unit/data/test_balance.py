"""How the data falls is said, with what helps: people with many records each fall unevenly."""

from __future__ import annotations

from s3t_ray.config.schema import Data
from s3t_ray.data.balance import Hashed, balance, better_seed
from s3t_ray.data.partition import Place, place
from tests.unit.data.conftest import build_config

TEN_PEOPLE: dict[Hashed, int] = {("", f"p{number}"): 20 for number in range(10)}


def test_sixty_and_a_hundred_and_forty_are_uneven() -> None:
    config = build_config(shards=2, slices=3, data=Data(path="x", subject_field="s", partition_by="subject"))
    places = [Place(shard, at) for shard in range(2) for at in range(3)]
    sizes = dict(zip(places, (20, 20, 20, 40, 40, 60), strict=True))
    (line,) = balance(2, 3, sizes).advice(config)
    assert "60 to 140 records, the largest 1.40 times the mean" in line
    assert "another seed" in line and "data.partition_by: record" in line
    sizes[Place(0, 0)] = 0
    empty, uneven = balance(2, 3, sizes).advice(config)
    assert "1 of 6 slices is empty: use fewer slices or shards, or another seed, or data.partition_by" in empty
    assert "40 to 140" in uneven


def test_a_better_seed_leaves_no_slice_empty_and_spreads_the_people() -> None:
    config = build_config(shards=2, slices=3, data=Data(path="x", subject_field="s", partition_by="subject"))

    def falls(seed: int) -> list[int]:
        tried = config.model_copy(update={"seed": seed})
        sizes = dict.fromkeys((Place(shard, at) for shard in range(2) for at in range(3)), 0)
        for (identity, person), count in TEN_PEOPLE.items():
            sizes[place(identity, person, tried, b"s" * 32)] += count
        return list(sizes.values())

    found = better_seed(TEN_PEOPLE, config, b"s" * 32)
    best = min((falls(seed).count(0), max(sum(falls(seed)[:3]), sum(falls(seed)[3:]))) for seed in range(100))
    chosen = config.seed if found is None else found[0]
    assert (falls(chosen).count(0), max(sum(falls(chosen)[:3]), sum(falls(chosen)[3:]))) == best
    assert best == (0, 100)
