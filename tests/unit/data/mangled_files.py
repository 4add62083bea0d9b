"""Real data files, damaged at random, and whether what was read of them is what they say.

In: a source of random numbers. Out: bytes of a file, and sentences, one for each record that says other than the file
or row that is neither a record nor counted. Rows are read a second time here by the plainest means (json, csv, gzip),
none of which the readers under test use in this way. Damage that a checksum in the file covers must be refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from s3t_ray.config.schema import Data, Task
from s3t_ray.data.readers.read import RejectFile, read_records
from s3t_ray.data.readers.reading import Reading
from s3t_ray.data.records import Record
from s3t_ray.errors import DataError

TASKS = (Task(), Task(prompt="chat_template"), Task(kind="classification", labels=("a", "b")))
CALL = {"id": "1", "type": "function", "function": {"name": "w", "arguments": '{"city": "Zürich"}'}}
ROWS: list[dict[str, Any]] = [
    {"id": "a", "instruction": "Name three\ncolours.", "input": "", "output": 'Red, "blue" and \u2028 grün.'},
    {"id": 2, "messages": [{"role": "user", "content": "Hallo 👋"}, {"role": "assistant", "content": "Tag </s>"}]},
    {"id": "c", "text": "Ein Satz über e\u0301 und é.", "label": "a"},
    {"id": "d", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "tools": "[]"},
    {"id": "e", "prompt": "2 + 2 =", "completion": " 4", "score": 0.5, "at": None},
    {
        "id": "f",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Wetter?"}, {"type": "text", "text": " Jetzt."}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "18", "tool_call_id": "1"},
            {"role": "assistant", "content": "18 °C", "thinking": "so"},
        ],
        "tools": json.dumps([{"function": {"name": "w"}}]),
    },
]
TABLE = 'id,instruction,output,note\na,"Q, ""q""",A,\nb,"Q\nr",B,x\n"c", lead,trail ,\n'
SPLICES = (b'"', b"{", b"}", b"[", b"]", b"\n", b"\r", b"\x00", b",", b":", b"\\u", b"\xff", b"1e999", b"null", b"\\")


def _lines(ascii_only: bool, end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in ROWS).encode()


def _parquet(**options: Any) -> bytes:
    flat = [row for row in ROWS if "messages" not in row and "conversations" not in row]
    names = sorted({name for row in flat for name in row})
    columns = {name: [None if row.get(name) is None else str(row[name]) for row in flat * 40] for name in names}
    columns["id"] = [f"{value}{at}" for at, value in enumerate(columns["id"])]
    turns = [[{"role": "user", "content": "Q"}, {"role": "assistant", "content": f"A{at}"}] for at in range(120)]
    target = io.BytesIO()
    pq.write_table(pa.table({**columns, "messages": turns}), target, row_group_size=50, **options)
    return target.getvalue()


def _zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


SAMPLES: dict[str, bytes] = {
    "lines.jsonl": _lines(False),
    "escaped.jsonl": _lines(True, "\r\n"),
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "wrapped.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "table.csv": TABLE.encode(),
    "table.tsv": b"id\ttext\tlabel\n1\tT\ta\n2\tU \xc3\xbc\tb\n",
    "lines.jsonl.gz": gzip.compress(_lines(False), mtime=0),
    "table.csv.gz": gzip.compress(TABLE.encode() * 1, mtime=0),
    "lines.jsonl.zst": _zstd(_lines(False)),
    "plain.parquet": _parquet(compression="none"),
    "sealed.parquet": _parquet(write_page_checksum=True, compression="snappy"),
    "packed.parquet": _parquet(write_page_checksum=True, compression="zstd", use_dictionary=False),
}
"""Files by a name that tells their format. Damage to the content of `lines.jsonl.gz`, `table.csv.gz`, `sealed.parquet`
and `packed.parquet` is covered by checksums."""
SEALED = frozenset({"lines.jsonl.gz", "table.csv.gz", "sealed.parquet", "packed.parquet"})


def mangled(random: Random, name: str) -> bytes:
    """The sample `name` with a few pieces replaced, cut out, doubled, moved or cut off; a bit turned at times."""
    data = bytearray(SAMPLES[name])
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(data) + 1), random.choice((0, 1, 2, 6, 40))
        kind = random.randrange(6)
        if kind == 0:
            data[at : at + length] = random.randbytes(random.randint(0, 6))
        elif kind == 1:
            data[at : at + length] = random.choice(SPLICES)
        elif kind == 2:
            data[at:at] = data[at : at + length]
        elif kind == 3 and data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        elif kind == 4:
            piece = data[at : at + length]
            del data[at : at + length]
            data[random.randrange(len(data) + 1) :][:0] = piece
        else:
            del data[at : at + length]
    return bytes(data[: random.randrange(len(data) + 1)] if random.random() < 0.2 else data)


@dataclass
class Read:
    """What became of one file."""

    records: list[Record] = field(default_factory=list)
    rejected: int = 0
    repeated: int = 0
    refused: DataError | None = None


def read(path: Path, task: Task) -> Read:
    """The file's records, malformed rows set aside. Any error but DataError comes through: it is a fault."""
    found, reading = Read(), Reading()
    with RejectFile(path.with_name("rejects")) as rejects:
        try:
            for record in read_records(Data(path=str(path), on_malformed="set_aside"), task, rejects, reading=reading):
                found.records.append(record)
        except DataError as error:
            assert error.problem and error.fix
            found.refused = error
        found.rejected, found.repeated = rejects.count, reading.repeated
    return found


def faults(name: str, data: bytes, found: Read) -> Iterator[str]:
    """How what was read differs from what the file says; nothing, where it does not."""
    if found.refused is not None:
        return  # nothing of it is kept
    if name == "plain.parquet":  # nothing in it tells a text from another
        count = pq.ParquetFile(io.BytesIO(data)).metadata.num_rows
        if count != len(found.records) + found.rejected + found.repeated:
            yield f"{count} rows became {len(found.records)} records and {found.rejected} rejects"
        return
    rows = list(_second_reading(name, SAMPLES[name] if name in SEALED else data))
    if len(rows) != len(found.records) + found.rejected + found.repeated:
        yield f"{len(rows)} rows became {len(found.records)} records and {found.rejected} rejects"
    by_id: dict[str, list[set[str]]] = {}
    for row in rows:
        if isinstance(row, Mapping):
            by_id.setdefault(str(row.get("id")), []).append({"", *_texts(row)})
    everything: set[str] = set().union(*(each for some in by_id.values() for each in some))
    for record in found.records:
        said = set(_texts(json.loads(record.content))) - _OURS
        known = by_id.get(record.id, [everything] if record.id.startswith("c-") else [])
        if not any(all(_stands(text, row) for text in said) for row in known):
            yield f"record {record.id!r} says {sorted(said)!r}, which no row of the file does"


_OURS = frozenset(
    {"user", "assistant", "system", "tool", "instruction", "input", "output", "messages", "role", "content"}
)
_OURS |= {"text", "label", "reasoning_content"}
"""Names that are ours, whatever the file calls these things."""


def _stands(text: str, row: set[str]) -> bool:
    return text in row or any(text == first + second for first in row for second in row)  # of content in two parts


def _second_reading(name: str, data: bytes) -> Iterator[object]:
    if name.endswith(".parquet"):
        yield from pq.read_table(io.BytesIO(data)).to_pylist()
        return
    if name.endswith(".gz"):
        data, name = gzip.decompress(data), name.removesuffix(".gz")
    elif name.endswith(".zst"):
        with pa.input_stream(io.BytesIO(data), compression="zstd") as stream:
            data, name = stream.read(), name.removesuffix(".zst")
    reader: Callable[[bytes], Iterator[object]] = {"jsonl": _json_lines, "json": _json, "csv": _csv, "tsv": _tsv}[
        name.rsplit(".", 1)[1]
    ]
    yield from reader(data)


def _json(data: bytes) -> Iterator[object]:
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        yield from _json_lines(data)
        return
    if isinstance(value, dict):
        wrapped = [each for key, each in value.items() if key in ("data",) and isinstance(each, list)]
        value = wrapped[0] if wrapped else [value]
    yield from value


def _json_lines(data: bytes) -> Iterator[object]:
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        yield from json.loads(data.decode("utf-8-sig"))
        return
    for line in data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _csv(data: bytes, delimiter: str = ",") -> Iterator[object]:
    rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter)
    names = next(rows, [])
    yield from (dict(zip(names, cells, strict=False)) for cells in rows if cells)


def _tsv(data: bytes) -> Iterator[object]:
    return _csv(data, "\t")


def _texts(value: object) -> Iterator[str]:
    """Every text in `value`, and in the JSON that a text holds."""
    if isinstance(value, str):
        yield value
        if value.lstrip()[:1] in ("[", "{"):
            try:
                yield from _texts(json.loads(value))
            except (ValueError, RecursionError):
                return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
