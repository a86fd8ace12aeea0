"""What only a server can do: ask for a password, restart, stop, hold tables of others."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from pmlm_env.llm.base import Completion, Request
from pmlm_env.llm.storage import postgres as module
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.llm.storage.cached_llm import CachedLLM
from pmlm_env.llm.storage.database import DatabaseError
from pmlm_env.llm.storage.location import check_location
from pmlm_env.llm.storage.postgres import PostgresDatabase
from tests.commands import pmlm
from tests.llm.storage.postgres_server import PASSWORD, Server, binaries, serve
from tests.real.runs import evaluation, prepare, train
from tests.standins import EchoLLM

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'pmlm-env[postgres]'")
pytestmark = pytest.mark.once

HELLO = Completion("hello", 3, 1, "stop", "model-1")


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@db.example/replies",
        "postgres://me:hunter2@db.example/replies",
        "postgresql://db.example/replies?user=me&password=hunter2",
        "postgresql://db.example/replies?sslpassword=hunter2",
        "postgresql://me:hunter2@[db.example/replies",
        "mysql://me:hunter2@db.example/replies",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_shown(url: str) -> None:
    for refuse in (check_location, ReplyCache):
        with pytest.raises(ValueError, match=r"PGPASSWORD|should look like|is not possible") as caught:
            refuse(url)
        assert "hunter2" not in str(caught.value)


def test_a_wrong_password_is_one_line_without_it(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "wrong-word")
    with pytest.raises(
        DatabaseError, match=r"cannot be reached or used: check .*password authentication failed"
    ) as caught:
        ReplyCache(postgres).check_writable()
    assert "wrong-word" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_password_may_be_in_a_pgpass_file(postgres: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:*:*:*:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    ReplyCache(postgres).put("llm", {Request("a"): HELLO})
    assert len(ReplyCache(postgres)) == 1


def test_the_password_may_be_in_a_service_file(postgres: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PGPASSWORD")
    parts = psycopg.conninfo.conninfo_to_dict(postgres)
    lines = [f"{name}={parts[name]}" for name in ("host", "port", "user", "dbname")]
    (tmp_path / "services").write_text("\n".join(["[replies]", *lines, f"password={PASSWORD}", ""]))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    cache = ReplyCache("postgresql:///?service=replies")
    cache.put("llm", {Request("a"): HELLO})
    assert len(cache) == 1
    assert PASSWORD not in cache.name
    assert PASSWORD.encode() not in pickle.dumps(cache)


def test_reading_a_database_without_tables_makes_none(postgres: str) -> None:
    assert ReplyCache(postgres).get("llm", [Request("a")]) == {}
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_a_database_with_tables_of_another_kind_is_refused(postgres: str) -> None:
    PostgresDatabase(postgres, "diary", ["CREATE TABLE entries (entry TEXT)"]).check_writable()
    with pytest.raises(DatabaseError, match="tables of another kind, not a reply cache: choose another database"):
        ReplyCache(postgres).put("llm", {Request("a"): HELLO})


def test_a_table_of_another_program_is_left_alone(postgres: str) -> None:
    execute(postgres, "CREATE TABLE replies (theirs TEXT)", "INSERT INTO replies VALUES ('x')")
    with pytest.raises(DatabaseError, match="has a table of another program"):
        ReplyCache(postgres).put("llm", {Request("a"): HELLO})
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT * FROM replies").fetchall() == [("x",)]


def test_a_user_who_may_only_read_can_replay_and_asks_nothing(postgres: str) -> None:
    ReplyCache(postgres).put("echo", {Request("a"): HELLO})
    execute(
        postgres,
        "CREATE ROLE reader LOGIN",
        f"ALTER ROLE reader PASSWORD '{PASSWORD}'",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
    )
    theirs = postgres.replace("tester@", "reader@")
    assert CachedLLM(EchoLLM(), ReplyCache(theirs), replay=True).generate(["a"])[0].text == "hello"
    inner = EchoLLM()
    with pytest.raises(DatabaseError, match="does not let this user create or change its tables"):
        CachedLLM(inner, ReplyCache(theirs)).generate(["b"])
    assert inner.batches == []


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """A server that a test may stop."""
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr("pmlm_env.llm.storage.cache.cache_dir", lambda: tmp_path / "aside")
    with serve() as server:
        yield server


def test_a_run_goes_on_after_the_server_has_crashed_and_started_again(own_server: Server) -> None:
    cache = ReplyCache(own_server.new_database())
    cache.put("llm", {Request("a"): HELLO})
    own_server.stop()
    own_server.start()
    cache.put("llm", {Request("b"): HELLO})
    assert sorted(reply.request["prompt"] for reply in cache) == ["a", "b"]


def test_replies_that_arrive_while_the_server_is_down_are_set_aside(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)

    class Stopping(EchoLLM):
        def replies(self, requests):  # type: ignore[no-untyped-def]
            own_server.stop()
            yield from super().replies(requests)

    cache = ReplyCache(own_server.new_database())
    with pytest.raises(DatabaseError, match="cannot be reached"):
        CachedLLM(Stopping(), cache).generate(["b a"])
    own_server.start()
    inner = EchoLLM()
    (reply,) = CachedLLM(inner, ReplyCache(cache.name)).generate(["b a"])
    assert (reply.text, reply.cached, inner.batches) == ("a b", True, [])


@pytest.mark.parametrize(
    ("encrypted", "host", "address", "parameters", "refused"),
    [
        (False, "db.example", "203.0.113.5", {}, True),
        (True, "db.example", "203.0.113.5", {}, False),
        (False, "db.example", "203.0.113.5", {"sslmode": "disable"}, False),
        (False, "localhost", "127.0.0.1", {}, False),
        (False, "/run/postgresql", "", {}, False),
    ],
)
def test_prompts_go_to_another_machine_only_encrypted_unless_the_url_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    encrypted: bool,
    host: str,
    address: str,
    parameters: dict[str, str],
    refused: bool,
) -> None:
    class Connection:
        pgconn = SimpleNamespace(ssl_in_use=encrypted)
        info = SimpleNamespace(host=host, hostaddr=address, get_parameters=lambda: parameters)
        broken = closed = False

        def close(self) -> None:
            self.closed = True

        def execute(self, statement: bytes, values: object = ()) -> object:
            raise psycopg.OperationalError("connected")

    monkeypatch.setattr(psycopg, "connect", lambda *_, **__: Connection())
    message = "does not encrypt connections, so that nothing was sent" if refused else "connected"
    with pytest.raises(DatabaseError, match=message):
        ReplyCache("postgresql://db.example/replies").check_writable()


def test_a_run_whose_replies_are_on_a_server_keeps_no_password_and_can_be_replayed(
    postgres: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path / "prepared")
    assert train(tmp_path / "prepared", tmp_path / "a", "--cache", postgres) == 0
    assert train(tmp_path / "prepared", tmp_path / "b", "--cache", postgres, "--replay") == 0
    first, again = (evaluation(tmp_path / run, "--cache", postgres) for run in "ab")
    assert first == again
    assert not (tmp_path / "a" / "replies.sqlite").exists()
    assert json.loads((tmp_path / "a" / "config.json").read_text())["settings"]["calls"]["cache"] == postgres
    said = capsys.readouterr()
    assert f"pmlm evaluate --run {tmp_path / 'a'} --cache {postgres}" in said.out
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in files if PASSWORD.encode() in file.read_bytes()]
    assert PASSWORD not in said.out + said.err
    assert pmlm("cache", "stats", postgres) == 0
    assert re.search(rf"{re.escape(postgres)}: \d+ replies\n", capsys.readouterr().out)
