"""Numbered migrations: the SQL that brings an empty database, or an older ledger, to this version.

Never edit a released migration; add a new number at the end for a change of the schema. Each migration runs in the same
transaction as the row of `s3t_schema` that records it, under the writers' lock, so that two processes that open a
ledger upgrade it only once.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.rows.request_schema import REQUESTS

_BASE = (
    """
    CREATE TABLE s3t_head (
        id {integer} NOT NULL PRIMARY KEY CHECK (id = 1),
        sequence {integer} NOT NULL,
        epoch {integer} NOT NULL,
        holder TEXT NOT NULL,
        beats {integer} NOT NULL
    ){strict}
    """,
    "INSERT INTO s3t_head (id, sequence, epoch, holder, beats) VALUES (1, 0, 0, '', 0)",
    """
    CREATE TABLE s3t_run (
        id {integer} NOT NULL PRIMARY KEY CHECK (id = 1),
        name TEXT NOT NULL,
        recipe_digest TEXT NOT NULL,
        recipe_json TEXT NOT NULL,
        base_digest TEXT NOT NULL,
        shards {integer} NOT NULL,
        slices {integer} NOT NULL,
        key_check TEXT NOT NULL
    ){strict}
    """,
    """
    CREATE TABLE s3t_slices (
        shard {integer} NOT NULL,
        slice {integer} NOT NULL,
        records {integer} NOT NULL CHECK (records >= 0),
        lthash {bytes} NOT NULL,
        digest TEXT NOT NULL,
        file TEXT,
        file_sha256 TEXT,
        file_digest TEXT,
        file_deletion {integer} NOT NULL DEFAULT 0,
        PRIMARY KEY (shard, slice)
    ){strict}
    """,
    """
    CREATE TABLE s3t_deletions (
        sequence {integer} NOT NULL PRIMARY KEY,
        request_id TEXT NOT NULL UNIQUE,
        request_digest TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL CHECK (state IN ('accepted', 'pruned', 'purged', 'restored')),
        records {integer} NOT NULL,
        already_deleted {integer} NOT NULL,
        unknown {integer} NOT NULL,
        accepted_at TEXT NOT NULL,
        pruned_at TEXT,
        purged_at TEXT
    ){strict}
    """,
    "CREATE INDEX s3t_deletions_state ON s3t_deletions (state, sequence)",
    """
    CREATE TABLE s3t_records (
        id_hmac {bytes} NOT NULL PRIMARY KEY CHECK (length(id_hmac) = 32),
        subject_hmac {bytes},
        content_hmac {bytes},
        digest {bytes},
        shard {integer} NOT NULL,
        slice {integer} NOT NULL,
        deletion {integer} REFERENCES s3t_deletions (sequence),
        CHECK (deletion IS NOT NULL OR digest IS NOT NULL)
    ){strict_by_key}
    """,
    "CREATE INDEX s3t_records_subject ON s3t_records (subject_hmac) WHERE subject_hmac IS NOT NULL",
    "CREATE INDEX s3t_records_tombstone ON s3t_records (shard, slice, deletion) WHERE deletion IS NOT NULL",
    """
    CREATE TABLE s3t_hits (
        deletion {integer} NOT NULL REFERENCES s3t_deletions (sequence),
        shard {integer} NOT NULL,
        slice {integer} NOT NULL,
        records {integer} NOT NULL CHECK (records > 0),
        digest_before TEXT NOT NULL,
        digest_after TEXT NOT NULL,
        PRIMARY KEY (deletion, shard, slice),
        FOREIGN KEY (shard, slice) REFERENCES s3t_slices (shard, slice)
    ){strict}
    """,
    "CREATE INDEX s3t_hits_slice ON s3t_hits (shard, slice, deletion)",
    """
    CREATE TABLE s3t_links (
        deletion {integer} NOT NULL REFERENCES s3t_deletions (sequence),
        earlier {integer} NOT NULL REFERENCES s3t_deletions (sequence),
        PRIMARY KEY (deletion, earlier)
    ){strict}
    """,
    """
    CREATE TABLE s3t_stages (
        id TEXT NOT NULL PRIMARY KEY,
        shard {integer} NOT NULL,
        slices TEXT NOT NULL,
        ancestors TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('live', 'stale', 'purged')),
        adapter_sha256 TEXT NOT NULL,
        accepted_at TEXT NOT NULL,
        accepted {integer} NOT NULL,
        pruned_by {integer} REFERENCES s3t_deletions (sequence)
    ){strict}
    """,
    "CREATE INDEX s3t_stages_shard ON s3t_stages (shard, state)",
    """
    CREATE TABLE s3t_pruned (
        deletion {integer} NOT NULL REFERENCES s3t_deletions (sequence),
        position {integer} NOT NULL,
        stage TEXT NOT NULL REFERENCES s3t_stages (id),
        adapter_sha256 TEXT NOT NULL,
        PRIMARY KEY (deletion, position)
    ){strict}
    """,
    """
    CREATE TABLE s3t_events (
        sequence {integer} NOT NULL PRIMARY KEY,
        at TEXT NOT NULL,
        kind TEXT NOT NULL,
        shard {integer},
        detail TEXT NOT NULL
    ){strict}
    """,
)

_CERTIFICATES_AND_FAILURES = (
    "ALTER TABLE s3t_deletions ADD COLUMN restored_at TEXT",
    """
    CREATE TABLE s3t_certificates (
        sequence {integer} NOT NULL PRIMARY KEY CHECK (sequence > 0),
        deletion {integer} NOT NULL UNIQUE REFERENCES s3t_deletions (sequence),
        hash TEXT NOT NULL UNIQUE,
        certificate TEXT NOT NULL
    ){strict}
    """,
    """
    CREATE TABLE s3t_failures (
        stage TEXT NOT NULL PRIMARY KEY,
        attempts {integer} NOT NULL,
        error TEXT NOT NULL,
        at TEXT NOT NULL
    ){strict}
    """,
)

# Similarity data of a record: erased with its content when its deletion is purged.
_LIKENESS = (
    "CREATE INDEX s3t_records_content ON s3t_records (content_hmac) WHERE content_hmac IS NOT NULL",
    """
    CREATE TABLE s3t_sketching (
        id {integer} NOT NULL PRIMARY KEY CHECK (id = 1),
        permutations {integer} NOT NULL,
        shingle_words {integer} NOT NULL,
        bands {integer} NOT NULL,
        rows_a_band {integer} NOT NULL
    ){strict}
    """,
    """
    CREATE TABLE s3t_sketches (
        record {integer} NOT NULL PRIMARY KEY,
        id_hmac {bytes} NOT NULL UNIQUE,
        signature {bytes} NOT NULL
    ){strict}
    """,
    """
    CREATE TABLE s3t_bands (
        key {integer} NOT NULL,
        record {integer} NOT NULL,
        PRIMARY KEY (key, record)
    ){strict_by_key}
    """,
)

# Stages in training, for `s3t status` in any process; overwritten every few seconds.
_PROGRESS = (
    """
    CREATE TABLE s3t_running (
        stage TEXT NOT NULL PRIMARY KEY,
        shard {integer} NOT NULL,
        slices TEXT NOT NULL,
        worker_group {integer} NOT NULL,
        step {integer} NOT NULL,
        steps {integer} NOT NULL,
        loss {real},
        tokens_per_second {real},
        at TEXT NOT NULL
    ){strict}
    """,
)

# A deletion only appends, because marking records in place would rewrite pages all over the largest table. The purge
# sets `s3t_records.deletion`. No foreign key refers to the deletion; `consistency.py` checks all rows at once.
_TOMBSTONES = (
    """
    CREATE TABLE s3t_tombstones (
        shard {integer} NOT NULL,
        slice {integer} NOT NULL,
        id_hmac {bytes} NOT NULL,
        deletion {integer} NOT NULL,
        PRIMARY KEY (shard, slice, id_hmac)
    ){strict_by_key}
    """,
    """
    INSERT INTO s3t_tombstones (shard, slice, id_hmac, deletion)
    SELECT shard, slice, id_hmac, deletion FROM s3t_records WHERE deletion IS NOT NULL AND digest IS NOT NULL
    """,
    "UPDATE s3t_records SET deletion = NULL WHERE deletion IS NOT NULL AND digest IS NOT NULL",
    "DROP INDEX s3t_records_tombstone",
)

# Exports used to be events with free JSON: the newest event of a folder says whether its files may still exist.
_EXPORTS = (
    """
    CREATE TABLE s3t_exports (
        folder TEXT NOT NULL PRIMARY KEY,
        shard {integer} NOT NULL,
        stages TEXT NOT NULL,
        files TEXT NOT NULL,
        at TEXT NOT NULL
    ){strict}
    """,
    """
    INSERT INTO s3t_exports (folder, shard, stages, files, at)
    SELECT told.folder, told.shard, told.stages, told.files, told.at
    FROM (
        SELECT sequence, at, shard, kind, {detail_folder} AS folder, {detail_stages} AS stages, {detail_files} AS files
        FROM s3t_events WHERE kind IN ('exported', 'export_erased')
    ) AS told
    JOIN (
        SELECT max(sequence) AS sequence FROM s3t_events WHERE kind IN ('exported', 'export_erased')
        GROUP BY {detail_folder}
    ) AS newest ON newest.sequence = told.sequence
    WHERE told.kind = 'exported'
    """,
)

# Against attackers who write here without keys: a random id, seals, and a log that starts with the certificates.
_PROOF = (
    """
    CREATE TABLE s3t_identity (
        id {integer} NOT NULL PRIMARY KEY CHECK (id = 1),
        run_id TEXT NOT NULL,
        place TEXT
    ){strict}
    """,
    "INSERT INTO s3t_identity (id, run_id) VALUES (1, {random_id})",
    "ALTER TABLE s3t_head ADD COLUMN at TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE s3t_run ADD COLUMN seal {bytes}",
    "ALTER TABLE s3t_records ADD COLUMN seal {bytes}",
    """
    CREATE TABLE s3t_log (
        sequence {integer} NOT NULL PRIMARY KEY CHECK (sequence > 0),
        kind TEXT NOT NULL,
        deletion {integer} REFERENCES s3t_deletions (sequence),
        hash TEXT NOT NULL UNIQUE,
        entry TEXT NOT NULL,
        UNIQUE (deletion, kind)
    ){strict}
    """,
    """
    INSERT INTO s3t_log (sequence, kind, deletion, hash, entry)
    SELECT sequence, 'certificate', deletion, hash, certificate FROM s3t_certificates
    """,
    "DROP TABLE s3t_certificates",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _BASE,
    _CERTIFICATES_AND_FAILURES,
    _LIKENESS,
    _PROGRESS,
    _TOMBSTONES,
    _EXPORTS,
    _PROOF,
    REQUESTS,
    *((f"ALTER TABLE {table} ADD COLUMN seal {{bytes}}",) for table in ("s3t_hits", "s3t_sketches")),
)
LATEST = len(MIGRATIONS)

_TYPES = {
    "sqlite": {
        "integer": "INTEGER",
        "bytes": "BLOB",
        "real": "REAL",
        "random_id": "lower(hex(randomblob(16)))",
        "strict": " STRICT",
        "strict_by_key": " STRICT, WITHOUT ROWID",
        "detail_folder": "json_extract(detail, '$.folder')",
        "detail_stages": "json_extract(detail, '$.stages')",
        "detail_files": "json_extract(detail, '$.files')",
    },
    "postgresql": {
        "integer": "BIGINT",
        "bytes": "BYTEA",
        "real": "DOUBLE PRECISION",
        "random_id": "replace(gen_random_uuid()::text, '-', '')",
        "strict": "",
        "strict_by_key": "",
        "detail_folder": "(CAST(detail AS json) ->> 'folder')",
        "detail_stages": "(CAST(detail AS json) ->> 'stages')",
        "detail_files": "(CAST(detail AS json) ->> 'files')",
    },
}


def schema_version(connection: Connection) -> int | None:
    """The version of the ledger in this database; None: there is none."""
    if not inspect(connection).has_table("s3t_schema"):
        return None
    version = connection.execute(text("SELECT max(version) FROM s3t_schema")).scalar()
    return None if version is None else int(version)


def check_version(version: int) -> None:
    """LedgerError if a newer s3t_ray has written this ledger."""
    if version > LATEST:
        raise LedgerError(
            f"the ledger has schema version {version}, but this s3t_ray knows versions only up to {LATEST}",
            "use the newer s3t_ray that wrote it; a ledger cannot be downgraded",
        )


def migrate(connection: Connection, now: str, target: int = LATEST) -> None:
    """Bring the database from its current version (or none) to `target`.

    The caller must hold the writers' lock and commit.
    """
    types = _TYPES[connection.dialect.name]
    version = schema_version(connection)
    if version is None:
        columns = "(version {integer} NOT NULL PRIMARY KEY, applied_at TEXT NOT NULL){strict}".format(**types)
        connection.execute(text(f"CREATE TABLE s3t_schema {columns}"))
        version = 0
    check_version(version)
    for number in range(version + 1, target + 1):
        for statement in MIGRATIONS[number - 1]:
            connection.execute(text(statement.format(**types)))
        connection.execute(
            text("INSERT INTO s3t_schema (version, applied_at) VALUES (:version, :now)"),
            {"version": number, "now": now},
        )
