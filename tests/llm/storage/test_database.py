from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.llm.storage.database import Database, DatabaseError

pytestmark = pytest.mark.once

SCHEMA = ("CREATE TABLE notes (note TEXT PRIMARY KEY)",)
FORK = multiprocessing.get_context("fork")


def notes(path: str | Path | None) -> Database:
    return Database(path, "notebook", SCHEMA)


def write(database: Database, *texts: str) -> None:
    with database.transaction() as connection:
        connection.executemany("INSERT INTO notes VALUES (?)", [(text,) for text in texts])


def read(database: Database) -> list[str]:
    return [note for (note,) in database.read("SELECT note FROM notes ORDER BY note")]


def in_child(task: Callable[[], None]) -> int | None:
    """Run in a forked child; the exit code, None if it had to be killed."""
    child = FORK.Process(target=task)
    child.start()
    child.join(300)
    if child.exitcode is None:
        child.kill()
    return child.exitcode


def test_what_is_written_is_there_for_another() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(notes(Path(folder) / "a"), "one", "two")
        assert read(notes(Path(folder) / "a")) == ["one", "two"]


def test_a_failed_transaction_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    database = notes(tmp_path / "a")

    def fail() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('half')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    write(database, "whole")
    assert read(database) == ["whole"]


def test_reading_a_file_that_is_not_there_makes_none(tmp_path: Path) -> None:
    assert read(notes(tmp_path / "new" / "a")) == []
    assert not (tmp_path / "new").exists()


def test_a_new_file_and_its_folder_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    database = notes(tmp_path / "new" / "a")
    write(database, "one")
    files = sorted((tmp_path / "new").iterdir())
    assert {file.name for file in files} >= {"a", "a-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_an_odd_name_is_a_file_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "a?mode=ro#100%", "file:b"):
        write(notes(name), "one")
        assert (tmp_path / name).is_file()


def test_a_file_stays_the_same_after_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = notes("a")
    write(database, "one")
    database.close()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert read(database) == ["one"]


@pytest.mark.parametrize("content", [b"hello", b"x" * 5000, "# Überschrift\n".encode() * 400])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    for use in (read, write):
        with pytest.raises(DatabaseError, match=r"^\S*/a is not a notebook: choose another file, restore"):
            use(notes(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == content
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE theirs (x)", "CREATE TABLE pmlm (kind)", "PRAGMA user_version = 7"]
)
def test_a_foreign_sqlite_file_is_refused_and_left_alone(tmp_path: Path, statement: str) -> None:
    with sqlite3.connect(tmp_path / "a") as theirs:
        theirs.execute(statement)
    theirs.close()
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(DatabaseError, match="is not a notebook but an SQLite file of another program"):
        write(notes(tmp_path / "a"), "one")
    assert (tmp_path / "a").read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


def test_a_database_of_ours_of_another_kind_is_refused(tmp_path: Path) -> None:
    write(notes(tmp_path / "a"), "one")
    with pytest.raises(DatabaseError, match="is a notebook, not a diary: choose another file"):
        Database(tmp_path / "a", "diary", SCHEMA).read("SELECT 1")


def test_a_file_of_a_later_layout_is_refused(tmp_path: Path) -> None:
    write(notes(tmp_path / "a"), "one")
    with sqlite3.connect(tmp_path / "a") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DatabaseError, match="has layout 99, but this pmlm-env reads 1: update it"):
        read(notes(tmp_path / "a"))


def test_an_empty_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    write(notes(tmp_path / "a"), "one")
    assert read(notes(tmp_path / "a")) == ["one"]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="is a folder: choose a file"):
        read(notes(tmp_path))


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(DatabaseError, match=r"a/b cannot be created \(.*\): choose another path"):
        write(notes(tmp_path / "a" / "b"), "one")


def test_a_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    write(notes(tmp_path / "a"), *(f"{i} {'x' * 100}" for i in range(1000)))
    content = bytearray((tmp_path / "a").read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DatabaseError, match=r"^\S*/a is damaged \(.*\): restore it from a backup, or move it away$"):
        read(notes(tmp_path / "a"))


def test_text_that_is_no_text_is_not_quoted(tmp_path: Path) -> None:
    with notes(tmp_path / "a").transaction() as connection:
        connection.execute("INSERT INTO notes VALUES (CAST(x'736563726574ff' AS TEXT))")
    with pytest.raises(DatabaseError, match="is damaged") as caught:
        read(notes(tmp_path / "a"))
    assert "secret" not in str(caught.value)


def test_a_pickles_twin_opens_the_file_itself_and_one_in_memory_starts_empty(tmp_path: Path) -> None:
    for path, expected in ((tmp_path / "a", ["one"]), (None, [])):
        database = notes(path)
        write(database, "one")
        assert read(pickle.loads(pickle.dumps(database))) == expected


def test_threads_take_turns() -> None:
    database = notes(None)
    threads = [threading.Thread(target=lambda i=i: write(database, f"{i} a", f"{i} b")) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read(database)) == 40


def test_many_can_open_a_new_file_at_once(tmp_path: Path) -> None:
    for attempt in range(5):
        barrier = FORK.Barrier(6)

        def task(path: Path = tmp_path / str(attempt), barrier: threading.Barrier = barrier) -> None:
            barrier.wait(300)
            write(notes(path), str(os.getpid()))

        children = [FORK.Process(target=task) for _ in range(6)]
        for child in children:
            child.start()
        for child in children:
            child.join(300)
        assert [child.exitcode for child in children] == [0] * 6
        assert len(read(notes(tmp_path / str(attempt)))) == 6


def test_two_that_find_no_file_at_once_make_one(tmp_path: Path) -> None:
    class Overtaken(Database):
        def _is_of_this_kind(self, connection: sqlite3.Connection) -> bool:
            ours = super()._is_of_this_kind(connection)
            if not ours:
                write(notes(tmp_path / "a"), "the faster one")
            return ours

    write(Overtaken(tmp_path / "a", "notebook", SCHEMA), "the slower one")
    assert read(notes(tmp_path / "a")) == ["the faster one", "the slower one"]


def test_whoever_opens_waits_for_one_who_still_reads_without_a_journal(tmp_path: Path) -> None:
    write(notes(tmp_path / "a"), "one")
    reader = sqlite3.connect(tmp_path / "a", isolation_level=None, check_same_thread=False)
    reader.execute("PRAGMA journal_mode = DELETE")  # as between the making of a file and its switch to write-ahead
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM notes").fetchall()
    timer = threading.Timer(0.2, reader.close)
    timer.start()
    database = notes(tmp_path / "a")
    assert read(database) == ["one"]
    timer.join()
    assert database.read("PRAGMA journal_mode") == [("wal",)]


def test_a_switch_to_write_ahead_that_sqlite_gives_up_at_once_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does about once in 300 times when eight processes open a new file together, whatever its timeout."""
    tries = []

    class Impatient(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if "journal_mode" in statement:
                tries.append(statement)
                if len(tries) < 3:
                    raise sqlite3.OperationalError("database is locked")
            return super().execute(statement, *values)

    monkeypatch.setattr(
        "pmlm_env.llm.storage.database._sqlite",
        lambda target, uri=False: sqlite3.connect(target, isolation_level=None, uri=uri, factory=Impatient),
    )
    write(notes(tmp_path / "a"), "one")
    assert len(tries) == 3


def test_a_fork_while_a_thread_is_writing_harms_neither(tmp_path: Path) -> None:
    database = notes(tmp_path / "a")
    began = threading.Event()

    def slowly() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('thread')")
            began.set()
            time.sleep(0.3)

    thread = threading.Thread(target=slowly)
    thread.start()
    began.wait()
    assert in_child(lambda: write(database, "child")) == 0
    thread.join()
    write(database, "parent")
    assert read(database) == ["child", "parent", "thread"]


def test_what_a_forked_child_writes_outlives_its_parents_connection(tmp_path: Path) -> None:
    database = notes(tmp_path / "a")
    write(database, "before")
    here, there = FORK.Pipe()

    def task() -> None:
        write(database, "child 1")
        there.send("ready")
        there.recv()
        write(database, "child 2")

    child = FORK.Process(target=task, daemon=True)
    child.start()
    assert here.poll(300)
    here.recv()
    read(database)
    database.close()  # if the child did not hold locks of its own, this would take the journal from under it
    assert (tmp_path / "a-wal").exists()
    here.send("go on")
    child.join(300)
    assert child.exitcode == 0
    assert read(notes(tmp_path / "a")) == ["before", "child 1", "child 2"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may look into, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def as_a_reader(task: Callable[[], None]) -> int | None:
    """Run in a child for which permissions count, as they do not for root."""

    def unprivileged() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        task()

    return in_child(unprivileged)


@pytest.mark.parametrize("folder_mode", [0o555, 0o755])
def test_a_file_that_cannot_be_written_can_be_read(open_folder: Path, folder_mode: int) -> None:
    path = open_folder / "a"
    write(notes(path), "one")
    path.chmod(0o444)
    open_folder.chmod(folder_mode)

    def task() -> None:
        assert read(notes(path)) == ["one"]
        with pytest.raises(DatabaseError, match="cannot be written: change its permissions"):
            write(notes(path), "two")

    assert as_a_reader(task) == 0


def test_a_file_nobody_closed_is_not_read_without_its_journal(open_folder: Path) -> None:
    database = notes(open_folder / "b")
    write(database, "one")
    for name in ("b", "b-wal"):  # as a kill -9 leaves them
        shutil.copy(open_folder / name, open_folder / name.replace("b", "a", 1))
        (open_folder / name.replace("b", "a", 1)).chmod(0o444)
    open_folder.chmod(0o555)

    def task() -> None:
        with pytest.raises(DatabaseError, match="cannot be written: copy it together with a-wal"):
            read(notes(open_folder / "a"))

    assert as_a_reader(task) == 0


def test_a_folder_that_cannot_be_written_gets_no_file(open_folder: Path) -> None:
    open_folder.chmod(0o555)

    def task() -> None:
        with pytest.raises(DatabaseError, match="cannot be created"):
            write(notes(open_folder / "a"), "one")

    assert as_a_reader(task) == 0
