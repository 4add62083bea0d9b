"""The ledger's tables for SQLAlchemy Core: names for queries only, nothing is created from them.

`migrations.py` has the SQL that creates them; a test keeps the two equal. Every table has the prefix `s3t_`, so that a
PostgreSQL database can be shared. Sequence numbers come from the single row of `s3t_head`, which every writer locks
first: they order commits, clocks do not.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, LargeBinary, MetaData, Table, Text

METADATA = MetaData()

SCHEMA = Table("s3t_schema", METADATA, Column("version", BigInteger, primary_key=True), Column("applied_at", Text))

HEAD = Table(
    "s3t_head",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("sequence", BigInteger),  # last number given to an event, a deletion or an accepted stage
    Column("epoch", BigInteger),
    Column("holder", Text),
    Column("beats", BigInteger),
    Column("at", Text),  # latest time given to a transaction; times never go back
)

IDENTITY = Table(
    "s3t_identity",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("run_id", Text),  # random; also in the storage
    Column("place", Text),  # the storage that first used this ledger; null: none yet
)

RUN = Table(
    "s3t_run",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("name", Text),
    Column("recipe_digest", Text),
    Column("recipe_json", Text),
    Column("base_digest", Text),
    Column("shards", BigInteger),
    Column("slices", BigInteger),
    Column("key_check", Text),
    Column("seal", LargeBinary),  # null: started by a version without seals
)

SLICES = Table(
    "s3t_slices",
    METADATA,
    Column("shard", BigInteger, primary_key=True),
    Column("slice", BigInteger, primary_key=True),
    Column("records", BigInteger),
    Column("lthash", LargeBinary),
    Column("digest", Text),
    Column("file", Text),
    Column("file_sha256", Text),
    Column("file_digest", Text),
    Column("file_deletion", BigInteger),  # the file lacks the rows of this and all earlier deletions
)

RECORDS = Table(
    "s3t_records",
    METADATA,
    Column("id_hmac", LargeBinary, primary_key=True),
    Column("subject_hmac", LargeBinary),
    Column("content_hmac", LargeBinary),  # erased, like the digest, when the record's deletion is purged
    Column("digest", LargeBinary),
    Column("shard", BigInteger),
    Column("slice", BigInteger),
    Column("deletion", BigInteger),  # purged deletion; null: retained, or has a tombstone
    Column("seal", LargeBinary),  # keyed MAC of id, subject and place; null: from a version without seals
)

TOMBSTONES = Table(
    "s3t_tombstones",  # records that are deleted but not purged
    METADATA,
    Column("shard", BigInteger, primary_key=True),
    Column("slice", BigInteger, primary_key=True),
    Column("id_hmac", LargeBinary, primary_key=True),
    Column("deletion", BigInteger),
)

SKETCHING = Table(
    "s3t_sketching",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("permutations", BigInteger),
    Column("shingle_words", BigInteger),
    Column("bands", BigInteger),
    Column("rows_a_band", BigInteger),
)

SKETCHES = Table(
    "s3t_sketches",
    METADATA,
    Column("record", BigInteger, primary_key=True),  # short number of the record in `s3t_bands`
    Column("id_hmac", LargeBinary),
    Column("signature", LargeBinary),
    Column("seal", LargeBinary),  # keyed MAC of id and signature; null: of a version that sealed no sketches
)

BANDS = Table(
    "s3t_bands",
    METADATA,
    Column("key", BigInteger, primary_key=True),
    Column("record", BigInteger, primary_key=True),
)

DELETIONS = Table(
    "s3t_deletions",
    METADATA,
    Column("sequence", BigInteger, primary_key=True),
    Column("request_id", Text),
    Column("request_digest", Text),
    Column("state", Text),
    Column("records", BigInteger),
    Column("already_deleted", BigInteger),
    Column("unknown", BigInteger),
    Column("accepted_at", Text),
    Column("pruned_at", Text),
    Column("purged_at", Text),
    Column("restored_at", Text),
)

HITS = Table(
    "s3t_hits",
    METADATA,
    Column("deletion", BigInteger, primary_key=True),
    Column("shard", BigInteger, primary_key=True),
    Column("slice", BigInteger, primary_key=True),
    Column("records", BigInteger),
    Column("digest_before", Text),
    Column("digest_after", Text),
    Column("seal", LargeBinary),  # keyed MAC of the removed records, written at their purge; null: not yet
)

LINKS = Table(
    "s3t_links",
    METADATA,
    Column("deletion", BigInteger, primary_key=True),
    Column("earlier", BigInteger, primary_key=True),  # deleted records that `deletion` also names
)

STAGES = Table(
    "s3t_stages",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("shard", BigInteger),
    Column("slices", Text),  # JSON list of int, in the order they were added
    Column("ancestors", Text),  # JSON list of stage ids
    Column("state", Text),
    Column("adapter_sha256", Text),
    Column("accepted_at", Text),
    Column("accepted", BigInteger),  # sequence number
    Column("pruned_by", BigInteger),  # deletion
)

PRUNED = Table(
    "s3t_pruned",
    METADATA,
    Column("deletion", BigInteger, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("stage", Text),
    Column("adapter_sha256", Text),
)

EVENTS = Table(
    "s3t_events",
    METADATA,
    Column("sequence", BigInteger, primary_key=True),
    Column("at", Text),
    Column("kind", Text),
    Column("shard", BigInteger),
    Column("detail", Text),
)

LOG = Table(
    "s3t_log",
    METADATA,
    Column("sequence", BigInteger, primary_key=True),  # position in the log, from 1
    Column("kind", Text),  # `EntryKind`
    Column("deletion", BigInteger),
    Column("hash", Text),
    Column("entry", Text),
)

FAILURES = Table(
    "s3t_failures",
    METADATA,
    Column("stage", Text, primary_key=True),
    Column("attempts", BigInteger),
    Column("error", Text),
    Column("at", Text),
)

RUNNING = Table(
    "s3t_running",
    METADATA,
    Column("stage", Text, primary_key=True),
    Column("shard", BigInteger),
    Column("slices", Text),  # JSON list of int
    Column("worker_group", BigInteger),
    Column("step", BigInteger),
    Column("steps", BigInteger),
    Column("loss", Double),
    Column("tokens_per_second", Double),
    Column("at", Text),
)

REQUESTS = Table(
    "s3t_requests",  # details of requests: `rows/request_rows.py`
    METADATA,
    Column("sequence", BigInteger, primary_key=True),
    Column("deletion", BigInteger),
    Column("at", Text),
    Column("due_at", Text),
    Column("details", LargeBinary),  # encrypted
)

CALLBACKS = Table(
    "s3t_callbacks",  # position of each receiver: `rows/callback_rows.py`
    METADATA,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger),  # of the last event that it has taken
    Column("attempts", BigInteger),
    Column("error", Text),
    Column("at", Text),
)

FOLLOWERS = Table(
    "s3t_followers",  # external servers with adapters: `rows/follower_rows.py`
    METADATA,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger),  # it has confirmed the history up to this number
    Column("at", Text),
)

EXPORTS = Table(
    "s3t_exports",  # folders outside the storage that may contain weights of the run
    METADATA,
    Column("folder", Text, primary_key=True),
    Column("shard", BigInteger),
    Column("stages", Text),  # JSON list of stage ids
    Column("files", Text),  # JSON list of names
    Column("at", Text),
)
