"""Real situations of sessions, each as a block: it holds inside, seen on the server, and is undone at the end."""

import contextlib
from collections.abc import Iterator, Sequence

import psycopg
from psycopg import sql

from tests.waiting import until

FOREVER = "SELECT pg_sleep(600)"


@contextlib.contextmanager
def idle(dsn: str, count: int = 1) -> Iterator[list[int]]:
    """Yield the pids of so many sessions that were opened and never used."""
    with contextlib.ExitStack() as stack:
        yield [_pid(stack.enter_context(_connected(dsn))) for _ in range(count)]


@contextlib.contextmanager
def idle_in_transaction(dsn: str, statement: str = "SELECT 1", *parameters: object) -> Iterator[int]:
    """Yield the pid of a session that ran this in a transaction it has not ended.

    With parameters it goes over the extended protocol, where even a read pins xmin.
    """
    with _connected(dsn) as connection:
        connection.execute("BEGIN")
        connection.execute(statement.encode(), parameters or None)
        yield _pid(connection)


@contextlib.contextmanager
def aborted_transaction(dsn: str) -> Iterator[int]:
    """Yield the pid of a session whose transaction failed and was not rolled back."""
    with _connected(dsn) as connection:
        connection.execute("BEGIN")
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        yield _pid(connection)


@contextlib.contextmanager
def active(dsn: str, statement: str = FOREVER) -> Iterator[int]:
    """Yield the pid of a session that runs this statement, which must take long."""
    with _connected(dsn) as connection, _running(connection, statement):
        _until_seen(dsn, "state = 'active' AND pid = %s", _pid(connection))
        yield _pid(connection)


@contextlib.contextmanager
def waiting_for_lock(dsn: str) -> Iterator[tuple[int, int]]:
    """Yield the pid of a session idle in a transaction with a lock, and that of the active one it blocks."""
    lock = "SELECT pg_advisory_xact_lock(42)"
    with idle_in_transaction(dsn, lock) as holder, _connected(dsn) as waiter, _running(waiter, lock):
        _until_seen(dsn, "wait_event_type = 'Lock' AND pid = %s", _pid(waiter))
        yield holder, _pid(waiter)


@contextlib.contextmanager
def parallel_query(dsn: str, workers: int = 2) -> Iterator[int]:
    """Yield the pid of a session that runs a query with so many parallel workers; needs a database of its own."""
    with _connected(dsn) as connection:
        connection.execute("CREATE TABLE wide AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
        connection.execute(f"ALTER TABLE wide SET (parallel_workers = {workers})".encode())
        for setting in ("parallel_setup_cost", "min_parallel_table_scan_size"):
            connection.execute(f"SET {setting} = 0".encode())
        connection.execute(f"SET max_parallel_workers_per_gather = {workers}".encode())
        with _running(connection, "SELECT count(*) FROM wide WHERE pg_sleep(600) IS NULL"):
            _until_seen(dsn, "leader_pid = %s", _pid(connection), times=workers)
            yield _pid(connection)
        connection.execute("DROP TABLE wide")


@contextlib.contextmanager
def role(
    dsn: str, name: str, *, member_of: Sequence[str] = (), connection_limit: int = -1, password: str | None = None
) -> Iterator[str]:
    """Yield the name of a login role without privileges but these memberships."""
    create = sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}").format(
        sql.Identifier(name), connection_limit, password
    )
    with _connected(dsn) as superuser:
        superuser.execute(create)
        for group in member_of:
            superuser.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(name)))
    yield name
    with _connected(dsn) as superuser:
        superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name])
        superuser.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def _connected(dsn: str) -> psycopg.Connection:
    return psycopg.connect(dsn, autocommit=True)


def _pid(connection: psycopg.Connection) -> int:
    return connection.info.backend_pid


@contextlib.contextmanager
def _running(connection: psycopg.Connection, statement: str) -> Iterator[None]:
    """Send a statement without waiting for it; cancel it at the end, since closing would let it run on."""
    connection.pgconn.send_query(statement.encode())
    yield
    connection.cancel_safe(timeout=5)
    while connection.pgconn.get_result():
        pass


def _until_seen(dsn: str, condition: str, pid: int, times: int = 1) -> None:
    count = f"SELECT count(*) FROM pg_stat_activity WHERE {condition}".encode()
    with _connected(dsn) as observer:
        until(lambda: observer.execute(count, [pid]).fetchone() == (times,))


@contextlib.contextmanager
def locked_catalog(dsn: str, table: str) -> Iterator[psycopg.Connection]:
    """Hold an exclusive lock on a catalog table, as a superuser; yield the session that holds it.

    While pg_authid or pg_database is locked, nobody can log in: each new backend waits in start-up for the lock.
    """
    with _connected(dsn) as superuser:
        superuser.execute("BEGIN")
        superuser.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
        yield superuser
        superuser.execute("ROLLBACK")
