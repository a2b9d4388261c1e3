"""Cause real problems on the servers, besides the leaking service, with names full of special characters.

Each problem lasts until its block ends.
"""

import contextlib
import threading
from collections.abc import Iterator

import psycopg

from tests.e2e.scene import ARCHIVE, BILLING, REPORTS, Scene
from tests.support.servers import OwnPostgres
from tests.support.situations import active, idle_in_transaction

#: Names with characters that are special in a string, a pattern, a template or a message.
HOLDER = "holder 'h' [1] {{.}} %d"
LEAKER = 'cart "v.2" {{y}} \\ $2 (x|y) <!channel>'
LEAKY_SITE = '/carts/"{id}" {{z}} $3'
VACUUM = "dump `v` ${w}"
SATURATED = "till #1 ~ *"
#: The alert is critical from 10 waiting sessions on.
_WAITERS = 12
_LEAKED = 4
#: The alert fires if a snapshot is more than a million transactions old.
_TRANSACTIONS = 1_100_000
_LOCK = "SELECT pg_advisory_xact_lock(42)"


@contextlib.contextmanager
def all_other_problems(scene: Scene) -> Iterator[None]:
    """Cause every problem that has an alert, except those of the leaking service."""
    with contextlib.ExitStack() as stack:
        for problem in (full_server, blocked_sessions, busy_pool, vacuum_held_back, leaked_sessions, frozen_server):
            stack.enter_context(problem(scene))
        yield


@contextlib.contextmanager
def full_server(scene: Scene) -> Iterator[None]:
    """Fill a server with running statements and one held session."""
    server = scene.servers[REPORTS]
    with contextlib.ExitStack() as stack:
        stack.enter_context(idle_in_transaction(server.dsn(application_name=HOLDER)))
        for _ in range(_free(server)):
            stack.enter_context(active(server.dsn(application_name=LEAKER)))
        yield


def _free(server: OwnPostgres) -> int:
    query = """
        SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') + 1
    """
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    assert row
    return int(row[0])


@contextlib.contextmanager
def blocked_sessions(scene: Scene) -> Iterator[None]:
    """Let many sessions wait for a lock of a session that is idle in a transaction."""
    server = scene.servers[BILLING]
    with contextlib.ExitStack() as stack:
        stack.enter_context(idle_in_transaction(server.dsn(application_name=HOLDER), _LOCK))
        for _ in range(_WAITERS):
            stack.enter_context(active(server.dsn(application_name="victims"), _LOCK))
        yield


@contextlib.contextmanager
def busy_pool(scene: Scene) -> Iterator[None]:
    """Keep all connections of a pool busy with short transactions."""
    dsn = scene.servers[BILLING].dsn(application_name=SATURATED)
    stop = threading.Event()

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("BEGIN; SELECT pg_sleep(0.1); COMMIT")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def vacuum_held_back(scene: Scene) -> Iterator[None]:
    """Keep a snapshot open while a million transactions run."""
    server = scene.servers[BILLING]
    with idle_in_transaction(server.dsn(application_name=VACUUM), "SELECT %s::int", 1):
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(
                f"DO $$ BEGIN FOR n IN 1..{_TRANSACTIONS} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
            )
        yield


@contextlib.contextmanager
def leaked_sessions(scene: Scene) -> Iterator[None]:
    """Leak sessions one after the other at a route, with special characters in all names."""
    dsn = scene.servers[BILLING].dsn(application_name=LEAKER)
    route = LEAKY_SITE.replace('"', "%22").replace("{", "%7B").replace("}", "%7D").replace(" ", "%20")
    with contextlib.ExitStack() as stack:
        for _ in range(_LEAKED):
            stack.enter_context(idle_in_transaction(dsn, f"SELECT 1 /*route='{route}'*/"))
            scene.wait_for_polls(2)
        yield


@contextlib.contextmanager
def frozen_server(scene: Scene) -> Iterator[None]:
    """Stop all processes of a server, so that polls hang."""
    server = scene.servers[ARCHIVE]
    server.freeze()
    try:
        yield
    finally:
        server.thaw()
