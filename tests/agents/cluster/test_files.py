"""Files that a companion opens for a worker; here the companion is in this process, and Ray is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.cluster.files import Companion, RemoteDatabase
from agents.run_folder import RunFolder
from pmlm_env.io.files import locked
from pmlm_env.llm import BudgetExceededError, Completion, Limits, ReplyCache, Request, Usage
from pmlm_env.llm.storage import location
from pmlm_env.llm.storage.budget import Account
from pmlm_env.llm.storage.database import Database, DatabaseError
from pmlm_env.llm.storage.location import open_files_with

REQUESTS = [Request(f"prompt {i}") for i in range(1_000)]
REPLIES = {request: Completion(request.prompt.upper(), 2, 2, "stop") for request in REQUESTS}


def remote(path: Path, kind: str, schema: Any) -> RemoteDatabase:
    """The database of a worker with a companion of its own."""
    companion = Companion()

    def ask(method: str, *values: Any, **named: Any) -> Any:
        return getattr(companion, method)(*values, **named)

    return RemoteDatabase(ask, path, kind, schema)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process a worker."""
    monkeypatch.setattr(location, "_openers", [])
    open_files_with(remote)


@pytest.mark.usefixtures("worker")
def test_a_worker_uses_the_files_of_the_command_and_has_none_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "replies.sqlite"
    cache = ReplyCache(file)
    assert cache.path is None
    assert cache.put("llm", REPLIES) == REPLIES
    account = Account(Limits(max_llm_calls=3), tmp_path / "spent.sqlite")
    account.add(Usage(3, 20, 10, 0.5), check=True)
    with pytest.raises(BudgetExceededError, match=r"the LLM call limit of 3 \(3 spent or reserved\)"):
        account.add(Usage(1), check=True)
    location._openers.clear()  # the command's process
    assert {i: reply.text for i, reply in ReplyCache(file).get("llm", REQUESTS).items()} == {
        i: f"PROMPT {i}" for i in range(1_000)
    }
    assert Account(path=tmp_path / "spent.sqlite").usage == (3, 20, 10, 0.5)


def test_a_transaction_that_fails_changes_nothing(tmp_path: Path) -> None:
    database = remote(tmp_path / "x.sqlite", "test", ("CREATE TABLE t (a INTEGER UNIQUE)",))
    with database.transaction() as statements:
        assert statements.execute("INSERT INTO t VALUES (?)", (1,)).rowcount == 1

    def insert(*values: int, then: type[Exception] | None = None) -> None:
        with database.transaction() as statements:
            for value in values:
                statements.execute("INSERT INTO t VALUES (?)", (value,))
            if then is not None:
                raise then

    with pytest.raises(KeyError):
        insert(2, then=KeyError)
    with pytest.raises(DatabaseError, match=r"x\.sqlite is damaged \(UNIQUE constraint"):
        insert(3, 1)
    assert database.read("SELECT a FROM t") == [(1,)]
    with database.transaction() as statements:  # nothing is left open
        cursor = statements.execute("SELECT a FROM t")
        assert (cursor.fetchone(), cursor.fetchone(), cursor.fetchall()) == ((1,), None, [])
    assert Database(tmp_path / "x.sqlite", "test", ()).read("SELECT a FROM t") == [(1,)]


def test_an_error_of_a_file_is_the_same_as_without_a_worker(tmp_path: Path) -> None:
    file = tmp_path / "x.sqlite"
    file.write_text("no database" * 100)
    said = []
    for database in (Database(file, "reply cache", ()), remote(file, "reply cache", ())):
        with pytest.raises(DatabaseError) as error:
            database.read("SELECT 1")
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.usefixtures("worker")
def test_a_worker_does_not_lock_the_run_folder_that_its_command_has_locked(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), RunFolder(tmp_path / "run").locked():
        pass
