"""Measures the cost of finding duplicates of a deleted record: at ingest, in the ledger, and at a deletion.

    python benchmarks/closure.py               # minutes, 0.3 GB of disk in --folder
    python benchmarks/closure.py --records 20000

Records have 20 to 200 words, drawn from a vocabulary by frequency. One in ten is a copy of another, and one in ten a
near-duplicate. The same records are ingested with and without sketches. Recall is measured against the true Jaccard
similarity of a sample of pairs, most of them slightly above the threshold. Writes benchmarks/results/closure.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

from rich.console import Console

from s3t_ray.data.minhash import Sketcher
from s3t_ray.data.shingles import text_shingles
from s3t_ray.ledger.keys import Keys
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.minhash_index import choose_bands
from s3t_ray.ledger.values import DuplicateSearch, Reach, RecordEntry, RunRow, Sketching
from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")
KEYS = Keys(b"benchmark" + bytes(23))
THRESHOLD, PERMUTATIONS, SHINGLE_WORDS = 0.8, 64, 5
RUN = RunRow("closure", "a" * 64, "{}", "b" * 64, 10, 10, KEYS.key_check)
LOOKED_UP = 200


@dataclass(frozen=True)
class Ingested:
    sketched: bool
    cpu_seconds: float  # of the ledger's transaction, without making records and sketches
    sketch_cpu_seconds: float
    ledger_bytes_a_record: float
    peak_megabytes: float  # of this process, so far


@dataclass(frozen=True)
class Closures:
    records: int
    bands: int
    rows_a_band: int
    ingest: tuple[Ingested, ...]
    preview_milliseconds: float  # median, with duplicates and near-duplicates, one record named
    preview_of_thousand_milliseconds: float
    near_duplicates: int  # true ones of the records looked up
    recall: float  # share of them that was found
    false: int  # found, but less similar than the threshold minus two standard errors


def contents(count: int) -> Iterator[str]:
    dice = Random(1)
    words = [f"w{number}" for number in range(20_000)]
    weights = list(accumulate(1 / (rank + 3) for rank in range(len(words))))
    last: list[str] = []
    for number in range(count):
        if number % 10 == 5:
            yield json.dumps({"text": " ".join(last)})
            continue
        if number % 10 == 6:
            made = list(last)
            made[dice.randrange(len(made))] = "changed"
        else:
            made = dice.choices(words, cum_weights=weights, k=dice.randint(20, 200))
        last = made
        yield json.dumps({"text": " ".join(made)})


@dataclass
class Spent:
    """CPU seconds spent outside the ledger."""

    making: float = 0.0
    sketching: float = 0.0


def entries(count: int, sketcher: Sketcher | None, spent: Spent) -> Iterator[RecordEntry]:
    made = enumerate(contents(count))
    while True:
        began = time.process_time()
        number, content = next(made, (-1, ""))
        between = time.process_time()
        spent.making += between - began
        if number < 0:
            return
        signature = None
        if sketcher is not None:
            signature = sketcher.sketch(content)
            spent.sketching += time.process_time() - between
        name = str(number)
        yield RecordEntry(
            KEYS.id_hmac(name),
            KEYS.subject_hmac(str(number % 1000)),
            KEYS.content_hmac(content),
            KEYS.record_digest(name, content),
            number % 10,
            number // 10 % 10,
            signature,
        )


def ingest(path: Path, count: int, sketching: Sketching | None) -> Ingested:
    sketcher = Sketcher(PERMUTATIONS, SHINGLE_WORDS, KEYS.shingle_hash) if sketching else None
    spent = Spent()
    with Ledger.open(f"sqlite:///{path}", create=True) as ledger:
        began = time.process_time()
        ledger.ingest(RUN, entries(count, sketcher, spent), sketching)
        seconds = time.process_time() - began
    size = path.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds -= spent.making + spent.sketching
    return Ingested(sketching is not None, seconds, spent.sketching, size / count, peak)


def look_up(path: Path, count: int) -> tuple[float, float, int, float, int]:
    """Median milliseconds of a preview, the same for a thousand records, true near-duplicates, recall, false ones."""
    sample = [number for number in range(count) if number % 10 == 4][:LOOKED_UP]
    texts = dict(enumerate(contents(max(sample) + 3)))
    closure = DuplicateSearch(Reach.NAMED, THRESHOLD)
    times: list[float] = []
    true = found = false = 0
    with Ledger.open(f"sqlite:///{path}") as ledger:
        for number in sample:
            began = time.perf_counter()
            preview = ledger.preview([KEYS.id_hmac(str(number))], (), closure)
            times.append(time.perf_counter() - began)
            near = jaccard(texts[number], texts[number + 2])
            got = preview.near_duplicates.records if preview.near_duplicates else 0
            true += near >= THRESHOLD
            found += near >= THRESHOLD and got > 0
            false += got > 0 and near < THRESHOLD - 2 * 0.5 / PERMUTATIONS**0.5
        began = time.perf_counter()
        ledger.preview([KEYS.id_hmac(str(number)) for number in range(1000)], (), closure)
        thousand = time.perf_counter() - began
    return 1e3 * sorted(times)[len(times) // 2], 1e3 * thousand, true, found / max(true, 1), false


def jaccard(one: str, other: str) -> float:
    first, second = (
        set(text_shingles(json.loads(one), SHINGLE_WORDS)),
        set(text_shingles(json.loads(other), SHINGLE_WORDS)),
    )
    return len(first & second) / len(first | second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=None, help="folder for temporary ledgers")
    arguments = parser.parse_args()
    bands, rows = choose_bands(PERMUTATIONS, THRESHOLD)
    sketching = Sketching(PERMUTATIONS, SHINGLE_WORDS, bands, rows)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        plain = ingest(Path(folder, "plain.db"), arguments.records, None)
        sketched = ingest(Path(folder, "sketched.db"), arguments.records, sketching)
        looked_up = look_up(Path(folder, "sketched.db"), arguments.records)
    result = Closures(arguments.records, bands, rows, (plain, sketched), *looked_up)
    Console().print(result)
    save(RESULTS / "closure.json", result)


if __name__ == "__main__":
    main()
