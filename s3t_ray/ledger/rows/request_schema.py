"""The SQL of a migration: details of requests, progress of callbacks, and positions of external followers."""

from __future__ import annotations

REQUESTS = (
    """
    CREATE TABLE s3t_requests (
        sequence {integer} NOT NULL PRIMARY KEY,
        deletion {integer} NOT NULL REFERENCES s3t_deletions (sequence),
        at TEXT NOT NULL,
        due_at TEXT,
        details {bytes} NOT NULL
    ){strict}
    """,
    "CREATE INDEX s3t_requests_deletion ON s3t_requests (deletion)",
    """
    CREATE TABLE s3t_callbacks (
        name TEXT NOT NULL PRIMARY KEY,
        position {integer} NOT NULL,
        attempts {integer} NOT NULL,
        error TEXT,
        at TEXT NOT NULL
    ){strict}
    """,
    """
    CREATE TABLE s3t_followers (
        name TEXT NOT NULL PRIMARY KEY,
        position {integer} NOT NULL,
        at TEXT NOT NULL
    ){strict}
    """,
)
