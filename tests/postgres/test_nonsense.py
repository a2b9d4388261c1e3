"""Servers that answer nonsense: each poll fails with a reason, nothing is raised, and no connection is left behind."""

import asyncio
import random
from collections.abc import Callable

import psycopg
import pytest

from pgwatch_sessions.core.model import Failure, FailureReason, Snapshot
from pgwatch_sessions.demo.postgres import Postgres
from tests.support.daemons import through
from tests.support.polling import failed, held, poll
from tests.support.ports import port_that_sends, sockets_to
from tests.support.proxy import proxy_to
from tests.support.servers import OwnPostgresFactory
from tests.support.waiting import until


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return a message of PostgreSQL's protocol: its type, its length, its body."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def setting(name: bytes, value: bytes) -> bytes:
    """Return a ParameterStatus."""
    return message(b"S", name + b"\0" + value + b"\0")


LET_IN = message(b"R", bytes(4))  # AuthenticationOk
READY = message(b"Z", b"I")  # ReadyForQuery
VERSION = setting(b"server_version", b"16.4")

#: What a server sends as soon as a client has said something, and part of what is said of it.
NONSENSE = {
    "ready without authentication": (READY, "no login of PostgreSQL"),
    "an unknown encoding": (LET_IN + VERSION + setting(b"client_encoding", b"KLINGON") + READY, "LookupError"),
    "a version that is no number": (LET_IN + setting(b"server_version", b"banana") + READY, 'version from "banana"'),
    "a setting that is no text": (LET_IN + setting(b"x", b"\xff") + VERSION + READY, "UnicodeDecodeError"),
    "an error without fields": (message(b"E") + READY, "BufferError"),
    "an error that is no text": (message(b"E", b"SFATAL\0C53300\0M\xff\0\0") + READY, "UnicodeDecodeError"),
    "authentication cut short": (message(b"R", b"\0"), "not enough data"),
    "a length below zero": (b"R\xff\xff\xff\xff", "no login of PostgreSQL"),
    "every bit inverted": (bytes(byte ^ 0xFF for byte in LET_IN + VERSION + READY), "no login of PostgreSQL"),
    "SCRAM without a nonce": (
        message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0") + message(b"R", b"\0\0\0\x0br=,s=,i=0"),
        "unexpected error while performing authentication",
    ),
    "columns before a question": (LET_IN + VERSION + READY + message(b"T", b"\0\1x"), "another operation"),
}


@pytest.mark.promise("What one server answers affects no other.")
@pytest.mark.parametrize(("answer", "said"), NONSENSE.values(), ids=NONSENSE)
async def test_whatever_a_server_answers_is_its_failure(answer: bytes, said: str) -> None:
    """The reason is `protocol`, the detail is one line without the password, and the socket is closed."""
    with port_that_sends(answer) as port:
        async with held(f"postgresql://u:s3cret@127.0.0.1:{port}/db?sslmode=disable") as connection:
            for _ in range(3):
                failure = failed(await connection.poll())
                assert failure.reason is FailureReason.PROTOCOL
                assert said in failure.detail
                assert "s3cret" not in failure.detail
                assert "\n" not in failure.detail
                await asyncio.to_thread(until, lambda: sockets_to(port) == [])


async def test_a_text_of_a_server_is_cut() -> None:
    """A server may send an error of any length, and it must not be repeated in the log, the page and the recording."""
    error = message(b"E", b"SFATAL\0C28000\0M" + b"no " * 2_000_000 + b"\0\0")
    with port_that_sends(error) as port:
        async with held(f"postgresql://u@127.0.0.1:{port}/db?sslmode=disable") as connection:
            failure = failed(await connection.poll())
    assert failure.reason is FailureReason.AUTHENTICATION
    assert failure.detail.startswith("connecting: no no no")
    assert len(failure.detail) < 350


def inverting(chances: random.Random) -> Callable[[bytes], bytes]:
    """Return a function that inverts one byte of what it is given."""

    def invert(data: bytes) -> bytes:
        at = chances.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]

    return invert


async def test_a_real_server_whose_answers_have_wrong_bytes_is_never_more_than_a_failure(postgres: Postgres) -> None:
    """Whatever the driver raises. When the bytes are right again, the server is seen, and one session is left."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        async with held(through(proxy), deadline=0.3, jitter=lambda _: 0) as connection:
            for seed in range(40):
                proxy.answer = bytes if seed % 4 == 0 else inverting(random.Random(seed))
                outcome = await connection.poll()
                assert isinstance(outcome, Snapshot | Failure)
                assert proxy.clients <= 2
            proxy.answer = bytes
            proxy.cut()
            async with asyncio.timeout(20):
                while not isinstance(await connection.poll(), Snapshot):
                    assert proxy.clients <= 2
            assert proxy.clients == 1


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n"])
def test_another_service_on_the_port_is_a_failure(answer: bytes) -> None:
    """It looks like the beginning of a long message, for the rest of which nobody waits."""
    with port_that_sends(answer) as port:
        for parameters in ("", "?sslmode=disable"):
            failure = failed(poll(f"postgresql://u@127.0.0.1:{port}/db{parameters}", deadline=5))
            assert failure.reason is FailureReason.PROTOCOL
            assert failure.detail == "connecting: the answer is no login of PostgreSQL; is this a PostgreSQL server?"


#: A function of PostgreSQL, and what it returns on a server that is not quite PostgreSQL.
NOT_QUITE_POSTGRESQL = {
    "pg_stat_get_activity(pid integer)": ("SETOF pg_stat_activity", "SELECT * FROM pg_stat_activity WHERE false"),
    "pg_stat_get_db_session_time(oid)": ("float8", "SELECT NULL::float8"),
    "pg_backend_pid()": ("integer", "SELECT 0"),
}


@pytest.mark.parametrize("function", NOT_QUITE_POSTGRESQL)
def test_rows_that_cannot_be_read_are_a_failure(own_postgres: OwnPostgresFactory, function: str) -> None:
    """For example, PostgreSQL always shows us our own session."""
    server = own_postgres(settings={"allow_system_table_mods": "on"})
    returns, body = NOT_QUITE_POSTGRESQL[function]
    with psycopg.connect(server.dsn(), autocommit=True) as superuser:
        superuser.execute(f"ALTER FUNCTION pg_catalog.{function} RENAME TO the_real_one".encode())
        create = f"CREATE FUNCTION pg_catalog.{function} RETURNS {returns} LANGUAGE sql AS '{body}'"
        superuser.execute(create.encode())
    failure = failed(poll(server.dsn()))
    assert failure.reason is FailureReason.PROTOCOL
    assert "is this a PostgreSQL server?" in failure.detail
