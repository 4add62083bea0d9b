"""Reads the rows of one file: JSONL, JSON, CSV, TSV and Parquet, plain or compressed.

In: a file. Out: its rows in order, each with its number. A row that cannot be parsed has a reason instead. Keeps one
row, or one batch of Parquet, in memory. Imports pyarrow only for Parquet and zstd.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path, PurePath
from typing import IO, Any, AnyStr, TextIO

from s3t_ray.config.schema import Data
from s3t_ray.data.readers.columns import wanted_columns
from s3t_ray.data.readers.json_array import LONGEST, BrokenArray, array_items, decoder, document_items
from s3t_ray.data.readers.mistaken_files import LONGEST_START, check_header, check_start, put_together
from s3t_ray.errors import DataError

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv"}
_ENDINGS |= {".parquet": "parquet", ".pq": "parquet"}
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_PEEK_BYTES = 4096
_COLUMNS = "a table stored by columns, not by rows: write it with orient='records' (pandas), or one object per line"
_BY_ID = "an object of rows keyed by id: write an array of objects that contain their ids"
_BATCH_ROWS = 256
_DECODER = decoder()


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row of a source. `number` is its line, or its position in an array, table or dataset, from 1."""

    source: str
    number: int
    value: object
    problem: str | None = None  # why it cannot be parsed


def file_format(name: str) -> str | None:
    """The format according to a file's name, compressed or not; None if the name does not determine it."""
    path = Path(name.lower())
    if path.suffix in _COMPRESSED:
        path = path.with_suffix("")
        return None if _ENDINGS.get(path.suffix) == "parquet" else _ENDINGS.get(path.suffix)
    return _ENDINGS.get(path.suffix)


def file_rows(path: Path, source: str, data: Data) -> Iterator[RawRow]:
    """The rows of one file. `source` is its name in messages.

    Raises DataError if the format is unknown or the file is damaged as a whole.
    """
    kind = data.format
    if kind == "auto":
        known = file_format(source)
        if known is None:
            if PurePath(source.lower()).suffix in _COMPRESSED and file_format(PurePath(source).stem) == "parquet":
                raise DataError(f"{source} is a Parquet file inside a compressed file", "unpack it")
            _check_start(path, source, "unknown")
            raise DataError(
                f"data.path: the extension of {source} does not determine its format",
                "set data.format to jsonl, json, csv, tsv or parquet",
            )
        kind = known  # type: ignore[assignment]
    try:
        _check_start(path, source, kind)
        if kind == "parquet":
            yield from _parquet_rows(path, source, data)
        elif kind in ("csv", "tsv"):
            yield from _table_rows(path, source, "," if kind == "csv" else "\t")
        else:
            yield from map(_not_columns, _json_rows(path, source, kind, data.split))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{source} cannot be read: {reason}", "restore the file") from error


def _check_start(path: Path, source: str, kind: str) -> None:
    with path.open("rb") if kind == "parquet" else _opened(path, source) as file:
        check_start(file.read(LONGEST_START), kind, source)


def _not_columns(row: RawRow) -> RawRow:
    """`row`, or a problem if it is an entire table stored by columns, which is pandas' default."""
    value = row.value
    if isinstance(value, Mapping) and value and (all(map(_is_column, value.values())) or all(map(str.isdigit, value))):
        return RawRow(row.source, row.number, None, _COLUMNS)
    if isinstance(value, Mapping) and len(value) > 1 and all(map(_is_record, value.values())):
        return RawRow(row.source, row.number, None, _BY_ID)
    return row


def _is_record(value: object) -> bool:
    """Whether `value` is an object with at least one text, like each row of a table that is keyed by id."""
    return isinstance(value, Mapping) and any(isinstance(cell, str) for cell in value.values())


def _is_column(value: object) -> bool:
    """Whether the value is a column of a table: texts or numbers by position. Messages are objects in a list."""
    if isinstance(value, list):
        return bool(value) and not any(isinstance(cell, (Mapping, list)) for cell in value)
    return isinstance(value, Mapping) and bool(value) and all(name.isdigit() for name in value)


def _json_rows(path: Path, source: str, kind: str, split: str) -> Iterator[RawRow]:
    first = _first_character(path, source)
    if first == "[":
        yield from _items(path, source, array_items)
    elif kind == "json" and first == "{" and not _first_line_is_whole(path, source):
        yield from _items(path, source, partial(document_items, split=split))
    else:
        yield from _line_rows(path, source)


def _line_rows(path: Path, source: str) -> Iterator[RawRow]:
    with _opened(path, source) as file:
        for number, line in enumerate(_pieces(_bounded(file, source)), start=1):
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8-sig").strip()  # concatenated files have a byte order mark at every start
                yield RawRow(source, number, _whole(text))
            except UnicodeDecodeError as error:
                yield RawRow(source, number, None, f"not UTF-8 (byte {error.start} of the line)")
            except json.JSONDecodeError as error:
                yield RawRow(source, number, None, f"not JSON: {error.msg} at column {error.colno}")
            except (ValueError, RecursionError) as error:  # a number that is too long, or nesting that is too deep
                yield RawRow(source, number, None, f"not JSON that can be represented: {type(error).__name__}")


def _bounded(file: IO[AnyStr], source: str) -> Iterator[AnyStr]:
    """The lines of a file. Raises DataError if a line is longer than LONGEST, because it must fit in memory."""
    for number in count(1):
        line = file.readline(LONGEST + 1)
        if not line:
            return
        if len(line) > LONGEST:
            raise DataError(
                f"{source}, line {number}: longer than {LONGEST >> 20} MiB, more than any record",
                "end its lines with line feeds, set another data.format if it is not line-based, or restore the file",
            )
        yield line


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Split lines at single carriage returns too, as old Macs and some exports write them.

    JSON text never contains an unescaped carriage return, so no row is split.
    """
    for line in lines:
        if b"\r" in line.removesuffix(b"\n").removesuffix(b"\r"):
            yield from line.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n").split(b"\n")
        else:
            yield line


def _whole(text: str) -> object:
    return _DECODER.decode(text)


def _items(path: Path, source: str, items: Callable[[TextIO], Iterator[object]]) -> Iterator[RawRow]:
    with _opened(path, source) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig") as file:
        number = 0
        try:
            for number, value in enumerate(items(file), start=1):
                yield RawRow(source, number, value)
        except UnicodeDecodeError as error:
            raise DataError(f"{source} is not UTF-8 text, after record {number}", "convert it to UTF-8") from error
        except BrokenArray as error:
            raise DataError(
                f"{source}: {error}", "make it one array of objects, or write one object per line"
            ) from error


def _first_line_is_whole(path: Path, source: str) -> bool:
    """Whether a .json file that starts with an object has one object per line, rather than a single object."""
    with _opened(path, source) as file:
        line, *more = _pieces(iter([file.readline(64 << 20)]))
        rest = b"".join(more) or file.readline(_PEEK_BYTES)
    try:
        value = _whole(line.decode("utf-8-sig").strip())
    except (ValueError, RecursionError):
        # Invalid lines are refused one by one; a document that continues is read as a document.
        return line.lstrip()[:1] == b"{" and line.rstrip().endswith(b"}") and rest.lstrip()[:1] == b"{"
    wrapper = isinstance(value, Mapping) and any(isinstance(item, list) for item in value.values())
    return bool(rest.strip()) or not wrapper


def _table_rows(path: Path, source: str, delimiter: str) -> Iterator[RawRow]:
    csv.field_size_limit(LONGEST)
    with _opened(path, source) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_bounded(file, source), delimiter=delimiter, strict=True)
        line = 1
        try:
            names = next(reader, [])
            check_header(names, delimiter, source)
            for cells in reader:
                if cells:
                    yield _table_row(source, line + 1, names, cells)
                line = reader.line_num
        except UnicodeDecodeError as error:
            raise DataError(f"{source} is not UTF-8 text, after line {line}", "convert it to UTF-8") from error
        except csv.Error as error:
            raise DataError(
                f"{source}, line {line + 1}: not {delimiter!r}-separated: {error}",
                'correct it; a quotation mark inside a quoted cell is written twice ("")',
            ) from error


def _table_row(source: str, line: int, names: list[str], cells: list[str]) -> RawRow:
    if len(cells) != len(names):
        return RawRow(source, line, None, f"{len(cells)} cells for {len(names)} columns")
    # A CSV table has no null; an empty cell is the closest.
    return RawRow(source, line, {name: cell or None for name, cell in zip(names, cells, strict=True) if name})


def _parquet_rows(path: Path, source: str, data: Data) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = count(1)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if put_together(path, _end_of_columns(file.metadata)):
                raise DataError(
                    f"{source} is several Parquet files joined into one; only the last would be read",
                    "keep them separate in one folder, or merge them with pyarrow",
                )
            columns = wanted_columns(data, file.schema_arrow.names)
            if twice := sorted({name for name in columns if columns.count(name) > 1}):
                raise DataError(f"{source} has two columns {twice[0]!r}", "give every column its own name")
            classes = _class_names(file.schema_arrow.metadata)
            shown = [name for name in file.schema_arrow.names if name not in columns]
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for value, problem in _batch_rows(batch):
                    if value is not None:
                        _name_classes(value, classes)
                        if not columns:
                            value = dict.fromkeys(shown)
                    yield RawRow(source, next(numbers), value, problem)
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter is raised for a column's name
        raise DataError(
            f"{source} is not a complete Parquet file: {error}", "restore the file and start again"
        ) from error


def _end_of_columns(metadata: Any) -> int:
    """The offset in bytes at which the last column of a Parquet file ends."""
    ends = [4]
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            starts = (column.dictionary_page_offset, column.data_page_offset)
            ends.append(min(at for at in starts if at is not None) + column.total_compressed_size)
    return max(ends)


def _batch_rows(batch: Any) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """(row, None) or (None, reason) for each row of an Arrow batch."""
    import pyarrow as pa

    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError, ArithmeticError, ImportError, pa.ArrowException):
        pass  # the code below finds the row and the column
    else:
        yield from ((row, None) for row in rows)
        return
    for index in range(batch.num_rows):
        row: dict[str, Any] = {}
        problem = None
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                row[name] = column[index].as_py()
            except (ValueError, OverflowError, ArithmeticError, ImportError, pa.ArrowException) as error:
                problem = f"field {name!r} ({column.type}) cannot be read: {type(error).__name__}"
                break
        yield (None, problem) if problem else (row, None)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """The class names of each ClassLabel column, which `datasets` writes to a Parquet file's schema."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(each) for each in kind["names"]]
            for name, kind in features.items()
            if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and isinstance(kind.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _name_classes(row: dict[str, Any], classes: Mapping[str, list[str]]) -> None:
    for name, names in classes.items():
        value = row.get(name)
        if type(value) is int and 0 <= value < len(names):
            row[name] = names[value]


@contextmanager
def _opened(path: Path, source: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed according to its name's extension."""
    how = _COMPRESSED.get(Path(source.lower()).suffix)
    if how is not None and not path.stat().st_size:
        raise EOFError(f"it is empty, and not a {how} file")  # Python's gzip accepts it as an empty archive
    if how == "gzip":
        with gzip.open(path, "rb") as file:
            yield file  # type: ignore[misc]
    elif how == "zstd":
        import pyarrow as pa

        with pa.input_stream(str(path), compression="zstd") as stream:
            yield io.BufferedReader(_Raw(stream))
    else:
        with path.open("rb") as file:
            yield file


class _Raw(io.RawIOBase):
    """Adapts a pyarrow stream to Python's raw I/O, which supports lines."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _first_character(path: Path, source: str) -> str:
    with _opened(path, source) as file:
        return file.read(_PEEK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()[:1].decode("latin-1")
