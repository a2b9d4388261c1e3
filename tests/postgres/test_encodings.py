"""Databases whose encoding is not UTF-8: the one that we connect to, and those whose sessions we read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import pgwatch_sessions
from pgwatch_sessions.core.model import SessionState
from pgwatch_sessions.demo.postgres import Postgres
from tests.support.polling import poll, seen, session_of
from tests.support.servers import OwnPostgresFactory

#: A text in each encoding of several bytes. MULE_INTERNAL has the number of a character set before each character.
TEXTS = {
    "EUC_JP": "日本語".encode("euc_jp"),
    "EUC_CN": "中文".encode("gb2312"),
    "EUC_KR": "한국어".encode("euc_kr"),
    "EUC_TW": b"\xc4\xe3\xc5\xc6",
    "EUC_JIS_2004": "日本語".encode("euc_jis_2004"),
    "UTF8": "日本語 é".encode(),
    "MULE_INTERNAL": b"\x81\xe9\x8b\xc1",
}
#: Letters in every encoding of one byte.
LETTERS = b"\xe9\xe0\xc4"


@contextlib.contextmanager
def database_in(server: Postgres, encoding: str, *, name: str | None = None) -> Iterator[str]:
    """Yield the name of a new database with this encoding."""
    name = name or f"in_{encoding.lower()}"
    with psycopg.connect(server.dsn(), autocommit=True) as superuser:
        superuser.execute(f"CREATE DATABASE \"{name}\" ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    yield name
    with psycopg.connect(server.dsn(), autocommit=True) as superuser:
        superuser.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextlib.contextmanager
def session_in(server: Postgres, encoding: str, text: str) -> Iterator[int]:
    """Yield the pid of a session in a database with this encoding, whose application and statement have the text."""
    with (
        database_in(server, encoding, name=f"of_{encoding.lower()}") as database,
        psycopg.connect(
            server.dsn(database=database, client_encoding=encoding), autocommit=True, application_name=text
        ) as connection,
    ):
        connection.execute(f'SELECT 1 AS "{text}"')
        yield connection.info.backend_pid


@pytest.fixture(scope="module")
def strangers(any_postgres: Postgres) -> Iterator[dict[str, int]]:
    """Open sessions with texts in several encodings, and roles and databases with such names; yield their pids."""
    latin1_name = '"gr\xf6\xdfe"'.encode("latin-1")
    with contextlib.ExitStack() as stack:
        pids = {
            encoding: stack.enter_context(session_in(any_postgres, encoding, text))
            for encoding, text in {"UTF8": "été", "LATIN1": "été", "EUC_JP": "日本語", "KOI8R": "привет"}.items()
        }
        database = stack.enter_context(database_in(any_postgres, "UTF8", name="größe"))
        with psycopg.connect(any_postgres.dsn(), autocommit=True) as superuser:
            superuser.execute('CREATE ROLE "rölle" LOGIN CONNECTION LIMIT 5')
        # A server keeps such a name as the bytes that it got; from a LATIN1 client, they are no UTF-8.
        raw = stack.enter_context(
            psycopg.connect(any_postgres.dsn(database="of_latin1", client_encoding="SQL_ASCII"), autocommit=True)
        )
        raw.execute(b"CREATE ROLE " + latin1_name + b" LOGIN CONNECTION LIMIT 7")
        raw.execute(b"CREATE DATABASE " + latin1_name + b" CONNECTION LIMIT 9")
        session = stack.enter_context(
            psycopg.connect(any_postgres.dsn(database=database, user="rölle"), autocommit=True)
        )
        pids["names"] = session.info.backend_pid
        yield pids
        session.close()
        raw.execute(b"DROP DATABASE " + latin1_name)
        raw.execute(b"DROP ROLE " + latin1_name)
        with psycopg.connect(any_postgres.dsn(), autocommit=True) as superuser:
            superuser.execute('DROP ROLE "rölle"')


def every_encoding(server: Postgres) -> list[str]:
    """Return all encodings that a database may have: those after the 35th are for clients only."""
    with psycopg.connect(server.dsn()) as connection:
        rows = connection.execute("SELECT pg_encoding_to_char(each) FROM generate_series(0, 34) AS each").fetchall()
    return [name for (name,) in rows if name]


def test_a_database_of_every_encoding_can_be_connected_to_and_read(any_postgres: Postgres) -> None:
    """With sessions of all other encodings, whose statements and application names have foreign text."""
    encodings = every_encoding(any_postgres)
    assert len(encodings) >= 34
    with contextlib.ExitStack() as stack:
        databases = [stack.enter_context(database_in(any_postgres, each, name=f"each_{each}")) for each in encodings]
        texts = {}
        for encoding, database in zip(encodings, databases, strict=True):
            text = TEXTS.get(encoding, LETTERS)
            dsn = any_postgres.dsn(database=database, client_encoding="SQL_ASCII")
            session = stack.enter_context(psycopg.connect(dsn, autocommit=True))
            session.execute(b"SET application_name = 'app-" + text + b"'")
            session.execute(b'SELECT 1 AS "' + text + b'"')
            texts[session.info.backend_pid] = f'SELECT ? AS "{text.decode(errors="replace")}"'
        for database in databases:
            snapshot = seen(poll(any_postgres.dsn(database=database)))
            assert snapshot.own_database == database
            for pid, shown in texts.items():
                other = session_of(pid, snapshot)
                assert other.statement.text == shown
                assert other.client.application.startswith("app-")
                assert other.state is SessionState.IDLE


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII"])
def test_any_database_can_be_connected_to_and_shows_the_same(
    any_postgres: Postgres, strangers: dict[str, int], encoding: str
) -> None:
    """UTF-8 is shown as it is, whatever the encoding of our database. Other bytes are replaced, and fail no poll."""
    with database_in(any_postgres, encoding) as database:
        snapshot = seen(poll(any_postgres.dsn(database=database)))
    statements = {name: session_of(pid, snapshot).statement.text for name, pid in strangers.items()}
    assert statements["UTF8"] == 'SELECT ? AS "été"'
    assert statements["LATIN1"] == 'SELECT ? AS "�t�"'
    assert statements["EUC_JP"].startswith('SELECT ? AS "�')
    assert statements["KOI8R"].startswith('SELECT ? AS "�')
    named = session_of(strangers["names"], snapshot)
    assert (named.client.database, named.client.user) == ("größe", "rölle")
    assert named.state is SessionState.IDLE
    assert dict(snapshot.server.role_limits) == {"rölle": 5, "gr��e": 7}
    assert dict(snapshot.server.database_limits) == {"gr��e": 9}
    assert {"größe", "gr��e"} <= {counters.database for counters in snapshot.databases}
    assert snapshot.own_database == database


@pytest.mark.parametrize("own", ["UTF8", "EUC_JP"])
def test_a_long_statement_may_end_in_half_a_character(own_postgres: OwnPostgresFactory, own: str) -> None:
    """A statement is cut by bytes: to count characters, the server would have to understand them all."""
    server = own_postgres(settings={"track_activity_query_size": "32kB"})
    # 8195 bytes: PostgreSQL itself reads beyond the end of such a text, and this length leaves room for that.
    text = "SELECT 1 -- ".ljust(8182, "x") + "é" * 10 + "xx" + "é"
    assert len(text.encode("latin-1")) == 8195
    with (
        database_in(server.server, "LATIN1") as other,
        database_in(server.server, own, name="own") as database,
        psycopg.connect(server.dsn(database=other, client_encoding="LATIN1"), autocommit=True) as connection,
    ):
        connection.execute(text)
        session = session_of(connection.info.backend_pid, seen(poll(server.dsn(database=database))))
    assert session.statement.text.startswith("SELECT ?")


def test_statements_are_sent_in_ascii() -> None:
    """A server refuses a character that its database cannot encode, even in a comment (SQLSTATE 22P05)."""
    files = list(Path(pgwatch_sessions.__file__).parent.rglob("*.sql"))
    assert files
    assert [str(file) for file in files if not file.read_bytes().isascii()] == []
