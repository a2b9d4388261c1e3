"""Why a connection could not be made, in words that say what to do."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgwatch_sessions.core.model import FailureReason
from pgwatch_sessions.postgres.unreachable import explained
from tests.support.daemons import daemon
from tests.support.polling import failed, held, poll, seen
from tests.support.ports import free_port
from tests.support.programs import environment, finished
from tests.support.servers import OwnPostgres, OwnPostgresFactory
from tests.support.situations import idle, role

LOCKED = "host all locked 127.0.0.1/32 scram-sha-256"


def test_a_refused_connection_names_host_and_port() -> None:
    """No error number, and what to check."""
    port = free_port()
    failure = failed(poll(f"postgresql://u@127.0.0.1:{port}/x"))
    assert failure.reason is FailureReason.NETWORK
    assert failure.detail == (
        f"connecting: connection refused at 127.0.0.1:{port}: is PostgreSQL running there, and does it listen on that "
        "address?"
    )


def test_each_host_is_named_with_its_reason(tmp_path: Path) -> None:
    """A socket that is missing is left out, because the driver tries the usual ones before localhost."""
    port = free_port()
    failure = failed(poll(f"postgresql://u@/x?host={tmp_path},127.0.0.1,localhost&port={port}"))
    assert failure.detail == (
        f"connecting: connection refused at 127.0.0.1:{port}; connection refused at localhost:{port}: "
        "is PostgreSQL running on one of them?"
    )
    missing = failed(poll(f"postgresql://u@/x?host={tmp_path}&port={port}"))
    assert f"there is no socket {tmp_path}/.s.PGSQL.{port}: is PostgreSQL running" in missing.detail


async def test_the_host_that_refuses_the_login_is_named_if_there_are_several(own_postgres: OwnPostgresFactory) -> None:
    """The first host was not reached, so the error is that of the second."""
    server = own_postgres(hba=[LOCKED.replace("scram-sha-256", "reject")])
    dsn = f"postgresql://locked@127.0.0.1:{free_port()},127.0.0.1:{server.port}/postgres"
    async with held(dsn) as connection:
        failure = failed(await connection.poll())
    assert failure.reason is FailureReason.AUTHENTICATION
    assert failure.detail.startswith(f"connecting to 127.0.0.1:{server.port}: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "the host name in db:5432 is unknown: check its spelling"),
        (
            socket.gaierror(socket.EAI_AGAIN, "x"),
            "the host name in db:5432 cannot be resolved now: does this machine's",
        ),
        (OSError(113, "x"), "no route to db:5432: check the address"),
        (OSError(110, "x"), "db:5432 does not answer: check the address"),
        (OSError("Multiple exceptions: [Errno 101] x, [Errno 111] y"), "connection refused at db:5432: is PostgreSQL"),
        (OSError(5, "Input/output error"), "cannot connect to db:5432: input/output error"),
    ],
)
def test_errors_of_the_system_are_said_in_words(error: OSError, said: str) -> None:
    """Numbers such as [Errno 111] tell nobody what to do."""
    assert str(explained(error, "db:5432")).startswith(said)


@contextmanager
def locked(own_postgres: OwnPostgresFactory) -> Iterator[OwnPostgres]:
    """Give a server with a role that must give its password."""
    server = own_postgres(hba=[LOCKED])
    with role(server.dsn(), "locked", password="right", member_of=["pg_monitor"]):
        yield server


def test_a_missing_password_is_called_missing(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """A wrong one is a rejected login. libpq's ways to give one are all taken."""
    passwords = tmp_path / "passwords"
    with locked(own_postgres) as server:
        options = ("check", "--polls", "1", "-h", "127.0.0.1", "-p", str(server.port), "-U", "locked", "-d", "postgres")
        no_home = {**environment(), "HOME": str(tmp_path)}
        missing = finished(*options, env=no_home)
        assert missing.returncode == 3
        assert "the server asks for a password, and none is given: set PGPASSWORD, add a line to" in missing.stdout
        wrong = finished(*options, env={**no_home, "PGPASSWORD": "wr0ng"})
        assert wrong.returncode == 3
        assert 'password authentication failed for user "locked"' in wrong.stdout
        assert "none is given" not in wrong.stdout
        passwords.write_text(f"*:{server.port}:*:locked:right\n")
        passwords.chmod(0o600)
        assert finished(*options, env={**no_home, "PGPASSFILE": str(passwords)}).returncode == 0


def test_a_service_with_its_password_is_polled(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """PGSERVICE alone names the server, role and password, as for psql."""
    with locked(own_postgres) as server:
        file = tmp_path / "services"
        file.write_text(f"[lab]\nhost=127.0.0.1\nport={server.port}\nuser=locked\npassword=right\ndbname=postgres\n")
        ended = finished("check", "--polls", "1", env={**environment(), "PGSERVICE": "lab", "PGSERVICEFILE": str(file)})
    assert ended.returncode == 0, ended
    assert ended.stdout.startswith("lab: 1 poll")


async def test_the_limit_of_our_own_role_is_not_a_full_server(own_postgres: OwnPostgresFactory) -> None:
    """Reason, metric, page and text say that it is our limit. It is not among the limits of the server's users."""
    server = own_postgres()
    with role(server.dsn(), "watcher", member_of=["pg_monitor"], connection_limit=1) as watcher:
        dsn = server.dsn(user=watcher)
        async with held(dsn) as connection:
            snapshot = seen(await connection.poll())
            assert ("watcher", 1) in snapshot.server.role_limits
            ended = await asyncio.to_thread(finished, "check", "--polls", "1", "--dsn", dsn)
            assert ended.returncode == 3
            assert "the limit on connections of our own role or database is reached (own_limit: " in ended.stdout
            assert "The server itself is not full." in ended.stdout
        await asyncio.to_thread(_watch, dsn)


def _watch(dsn: str) -> None:
    with idle(dsn), daemon(dsn=dsn) as refused:
        scrape = refused.scrape_when(lambda each: bool(each.value("poll_failures_total", reason="own_limit")))
        assert scrape.value("exhausted") is None
        assert "the limit on connections of our own role" in refused.get("/").text
    with daemon(dsn=dsn) as watching:
        scrape = watching.scrape_when_up()
        assert scrape.value("capacity_slots", scope="role", name="watcher") is None
