from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llm.storage.postgres_server import PASSWORD, Server, binaries, serve


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server for all tests of a process."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'pmlm-env[postgres]'")
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with serve() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of an empty database, whose password is in the environment."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr("pmlm_env.llm.storage.cache.cache_dir", lambda: tmp_path / "aside")
    return postgres_server.new_database()


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where processes can share replies: a file that does not exist yet, or an empty database on a server."""
    return str(tmp_path / "a") if request.param == "sqlite" else request.getfixturevalue("postgres")
