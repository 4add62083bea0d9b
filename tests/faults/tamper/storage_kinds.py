"""Tamperings with the storage alone: each kind of file changed, taken out, added or exchanged; and with both."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from s3t_ray.store.manifest import ADAPTER_FILE, Manifest, write_manifest
from tests.faults.tamper.ledger_kinds import Apply, statements

FILES = {
    "a slice": "slices/[0-9]/*/*.parquet",
    "held-out rows": "slices/holdout/*/*.parquet",
    "an adapter": f"stages/*/{ADAPTER_FILE}",
    "a stage's manifest": "stages/*/manifest.json",
    "hidden states": "hidden/**/part-*.safetensors",
    "the manifest of hidden states": "hidden/**/manifest.json",
    "a fence": "fences/*.json",
    "run.json": "run.json",
    "config.yaml": "config.yaml",
    "the config's seal": "config.seal.json",
    "the log's checkpoint": "log/checkpoint",
    "the log's newest tile": "log/tile/0/000.p/*",
    "the log's newest entries": "log/tile/entries/000.p/*",
    "input.json": "input.json",
}


def _first(root: Path, pattern: str) -> Path | None:
    """The first such file, of a stage that is live where it is a stage's; of the log's, the newest."""
    if pattern.startswith("log/tile/"):
        return max(root.glob(pattern), key=lambda path: int(path.name), default=None)
    found = (path for path in sorted(root.glob(pattern)) if path.is_file())
    return next((path for path in found if not pattern.startswith("stages/") or path.parent.name in _live(root)), None)


def _live(root: Path) -> frozenset[str]:
    with closing(sqlite3.connect(root / "ledger.db")) as connection:
        return frozenset(row[0] for row in connection.execute("SELECT id FROM s3t_stages WHERE state = 'live'"))


def on(pattern: str, change: Callable[[Path], object]) -> Apply:
    def apply(root: Path) -> bool:
        path = _first(root, pattern)
        if path is None:
            return False
        change(path)
        return True

    return apply


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def beside(name: str) -> Callable[[Path], object]:
    return lambda path: (path.parent / name).write_bytes(b"this is r3")


def manifest(**changes: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        said = json.loads(path.read_text())
        path.write_text(json.dumps({**said, **changes}))

    return change


def config(**changes: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        said = yaml.safe_load(path.read_text())
        for field, value in changes.items():
            room, _, name = field.partition("__")
            if name:
                said.setdefault(room, {})[name] = value
            else:
                said[room] = value
        path.write_text(yaml.safe_dump(said))

    return change


def put(name: str, data: bytes = b"this is r3") -> Apply:
    def apply(root: Path) -> bool:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        return True

    return apply


def old_stage(root: Path) -> bool:
    """A purged stage lies in the storage again."""
    for folder in sorted((root.parents[1] / "first" / "stages").iterdir()):
        if not (root / "stages" / folder.name).exists():
            shutil.copytree(folder, root / "stages" / folder.name)
            return True
    return False


def swapped_adapters(root: Path) -> bool:
    paths = [path for path in sorted((root / "stages").glob(f"*/{ADAPTER_FILE}")) if path.parent.name in _live(root)]
    if len(paths) < 2:
        return False
    first, second = paths[:2]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    return True


def with_metadata(path: Path) -> None:
    """A record's text in the metadata of a slice's file, its rows as they are."""
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"note": "this is r3"}), path)


def removed_log(root: Path) -> bool:
    shutil.rmtree(root / "log")
    return True


def older_log(root: Path) -> bool:
    """The published log as it was before the deletions: genuine, and behind."""
    shutil.rmtree(root / "log")
    shutil.copytree(root.parents[1] / "first" / "log", root / "log")
    return True


def older_config(root: Path) -> bool:
    """What the owner had given before: genuine, and not the newest."""
    for name in ("config.yaml", "config.seal.json"):
        shutil.copy(root.parents[1] / "first" / name, root / name)
    return True


def hidden_with_manifest(root: Path) -> bool:
    part = _first(root, FILES["hidden states"])
    path = _first(root, FILES["the manifest of hidden states"])
    if part is None or path is None:
        return False
    data = part.read_bytes()[:-1] + b"\xff"
    part.write_bytes(data)
    said = json.loads(path.read_text())
    said["digests"] = [hashlib.sha256(data[-8:]).hexdigest()[:32]]
    path.write_text(json.dumps(said))
    return True


def adapter_with_manifest(root: Path) -> bool:
    """Another adapter of the same shape, and a manifest that names it."""
    path = _first(root, FILES["an adapter"])
    if path is None:
        return False
    data = path.read_bytes()[:-1] + b"\xff"
    path.write_bytes(data)
    said = Manifest.model_validate_json((path.parent / "manifest.json").read_bytes())
    sha256 = hashlib.sha256(data).hexdigest()
    files = {**said.files, ADAPTER_FILE: sha256}
    changed = said.model_copy(update={"adapter_sha256": sha256, "files": files})
    (path.parent / "manifest.json").write_bytes(write_manifest(changed))
    return True


def adapter_with_manifest_and_ledger(root: Path) -> bool:
    path = _first(root, FILES["an adapter"])
    if path is None or not adapter_with_manifest(root):
        return False
    sha256, name = hashlib.sha256(path.read_bytes()).hexdigest(), path.parent.name
    return statements(
        f"UPDATE s3t_stages SET adapter_sha256 = '{sha256}' WHERE id = '{name}'",
        f"UPDATE s3t_events SET detail = json_set(detail, '$.adapter_sha256', '{sha256}') "
        f"WHERE kind = 'stage_accepted' AND json_extract(detail, '$.stage') = '{name}'",
    )(root)


def slice_with_ledger(change: Callable[[Path], object]) -> Apply:
    """Another file of a slice, and a ledger that names it by its hash."""

    def apply(root: Path) -> bool:
        path = _first(root, FILES["a slice"])
        assert path is not None
        before = str(path.relative_to(root))
        change(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        final = path.with_name(f"{sha256}.parquet")
        path.rename(final)
        return statements(
            f"UPDATE s3t_slices SET file = '{final.relative_to(root)}', file_sha256 = '{sha256}' "
            f"WHERE file = '{before}'"
        )(root)

    return apply


def rolled_back(*, storage: bool, ledger: bool) -> Apply:
    """The run as it was after its first training, from somebody's copy."""

    def apply(root: Path) -> bool:
        old = root.parents[1] / "first"
        if storage:
            for path in root.iterdir():
                if path.name.startswith("ledger.db"):
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in old.iterdir():
                if path.name.startswith("ledger.db"):
                    continue
                target = root / path.name
                shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)
        if ledger:
            for suffix in ("-wal", "-shm"):
                (root / f"ledger.db{suffix}").unlink(missing_ok=True)
            with sqlite3.connect(old / "ledger.db") as source, sqlite3.connect(root / "ledger.db") as target_database:
                source.backup(target_database)
        return True

    return apply


def kinds() -> Iterator[tuple[str, Apply]]:
    """With the storage alone: (name, what is done)."""
    for name, pattern in FILES.items():
        yield f"{name}: one bit flipped", on(pattern, flip)
        yield f"{name}: cut off in the middle", on(pattern, lambda path: path.write_bytes(path.read_bytes()[:40]))
        yield f"{name}: taken out", on(pattern, lambda path: path.unlink())
        if "/" in pattern:
            yield f"{name}: a foreign file beside it", on(pattern, beside("notes.txt"))
            yield f"{name}: a hidden file beside it", on(pattern, beside(".notes"))
    for field, value in {
        "steps": 99,
        "records": 99,
        "losses": [0.5],
        "tokens": 99,
        "versions": {"torch": "0"},
        "machine": {"cpu": "x"},
        "recipe_digest": "x",
        "parents": ["x"],
        "seal": None,
        "seconds": 9.0,
    }.items():
        yield f"a stage's manifest: its {field}", on(FILES["a stage's manifest"], manifest(**{field: value}))
    for field, value in {
        "seed": 9,
        "budget": 2,
        "name": "other",
        "lora__rank": 8,
        "optimizer__lr": 0.5,
        "order__depends_on_history": True,
        "ledger__url": "sqlite:////nowhere/ledger.db",
        "keys__dir": "/nowhere",
        "requeue__policy": "lazy",
        "log__timestamps": "https://elsewhere.example/tsa",
        "ledger__log_copy": "/nowhere/copy",
    }.items():
        yield f"config.yaml: {field.replace('__', '.')}", on("config.yaml", config(**{field: value}))
    yield "the config with its seal, as the owner had it before", older_config
    yield "run.json: another run's id", on("run.json", manifest(run_id="0" * 32))
    yield "input.json: another partition key", on("input.json", manifest(partition_key="secret"))
    yield "a slice: a record's text in its metadata", on(FILES["a slice"], with_metadata)
    yield "hidden states with their manifest", hidden_with_manifest
    yield "an adapter with its manifest", adapter_with_manifest
    yield "two adapters swapped", swapped_adapters
    yield "a purged stage put back", old_stage
    yield "a foreign file in the root", put("notes.txt")
    yield "a foreign file among the slices", put("slices/0/0/notes.parquet")
    yield "a fake stage", put("stages/" + "0" * 64 + "/adapter_model.safetensors")
    yield "checkpoints of a stage that is not needed", put("checkpoints/" + "0" * 64 + "/000000001/rank-0.safetensors")
    yield "a foreign file among the checkpoints", put("checkpoints/notes.txt")
    yield "a junk line among the rejects", put("rejects/rejects.jsonl", b"{not json\n")
    yield (
        "a deleted person's row among the rejects",
        put(
            "rejects/rejects.jsonl",
            b'{"source": "x", "line": 1, "reason": "x", "row": {"id": "r3", "subject": "p3"}}\n',
        ),
    )
    yield "copies of a replay", put("replay/0/slices/0/0/x.parquet")
    yield "a temporary that nobody is at work on", put("slices/0/tmp-rows-0123456789abcdef")
    yield "hidden states of data that is not retained", put("hidden/" + "b" * 16 + "/0/0/" + "0" * 64 + "/layer-2/x")
    yield "the published log as it was before the deletions", older_log
    yield "the published log taken out", removed_log
    yield "the storage as it was before the deletions", rolled_back(storage=True, ledger=False)


def kinds_of_both() -> Iterator[tuple[str, Apply]]:
    """With the storage and the ledger together."""
    yield "an adapter, its manifest, its row and its history", adapter_with_manifest_and_ledger
    yield "a slice with a record's text in its metadata, and its hash", slice_with_ledger(with_metadata)
    yield "a slice with a flipped bit, and its hash", slice_with_ledger(flip)
    yield "the ledger alone as it was before the deletions", rolled_back(storage=False, ledger=True)
    yield "everything as it was before the deletions", rolled_back(storage=True, ledger=True)
    yield (
        "a new name of the run in both",
        lambda root: (
            on("run.json", manifest(run_id="0" * 32))(root)
            and statements(f"UPDATE s3t_identity SET run_id = '{'0' * 32}'")(root)
        ),
    )
