"""What else can go wrong at servers, each for real, under names that bite; all of it lasts until the block ends."""

import contextlib
import threading
from collections.abc import Iterator

import psycopg

from tests.e2e.scene import ARCHIVE, BILLING, REPORTS, Scene
from tests.support.servers import OwnPostgres
from tests.support.situations import active, idle_in_transaction

#: Of each a character that ends or changes a string, a pattern, a template or a message.
HOLDER = "holder 'h' [1] {{.}} %d"
LEAKER = 'cart "v.2" {{y}} \\ $2 (x|y) <!channel>'
LEAKY_SITE = '/carts/"{id}" {{z}} $3'
VACUUM = "dump `v` ${w}"
SATURATED = "till #1 ~ *"
#: `critical` from 10 on.
_WAITERS = 12
_LEAKED = 4
#: More than a million transactions, the number from which an old snapshot does harm.
_TRANSACTIONS = 1_100_000
_LOCK = "SELECT pg_advisory_xact_lock(42)"


@contextlib.contextmanager
def everything_else(scene: Scene) -> Iterator[None]:
    """Bring about every situation that an alert is for, but for those of the leaking service."""
    with contextlib.ExitStack() as stack:
        for crisis in (full, blocked, busy, vacuum_held, leaked, frozen):
            stack.enter_context(crisis(scene))
        yield


@contextlib.contextmanager
def full(scene: Scene) -> Iterator[None]:
    """Fill a server with statements that run, beside one session that is held."""
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
def blocked(scene: Scene) -> Iterator[None]:
    """Let many wait for a lock of one who is idle in a transaction."""
    server = scene.servers[BILLING]
    with contextlib.ExitStack() as stack:
        stack.enter_context(idle_in_transaction(server.dsn(application_name=HOLDER), _LOCK))
        for _ in range(_WAITERS):
            stack.enter_context(active(server.dsn(application_name="victims"), _LOCK))
        yield


@contextlib.contextmanager
def busy(scene: Scene) -> Iterator[None]:
    """Keep all connections of a pool at work with one short transaction after the other."""
    dsn = scene.servers[BILLING].dsn(application_name=SATURATED)
    ended = threading.Event()

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not ended.is_set():
                connection.execute("BEGIN; SELECT pg_sleep(0.1); COMMIT")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def vacuum_held(scene: Scene) -> Iterator[None]:
    """Keep a snapshot while a million transactions go by."""
    server = scene.servers[BILLING]
    with idle_in_transaction(server.dsn(application_name=VACUUM), "SELECT %s::int", 1):
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(
                f"DO $$ BEGIN FOR n IN 1..{_TRANSACTIONS} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
            )
        yield


@contextlib.contextmanager
def leaked(scene: Scene) -> Iterator[None]:
    """Lose sessions one after the other at a route, all under names that bite."""
    dsn = scene.servers[BILLING].dsn(application_name=LEAKER)
    route = LEAKY_SITE.replace('"', "%22").replace("{", "%7B").replace("}", "%7D").replace(" ", "%20")
    with contextlib.ExitStack() as stack:
        for _ in range(_LEAKED):
            stack.enter_context(idle_in_transaction(dsn, f"SELECT 1 /*route='{route}'*/"))
            scene.next_polls(2)
        yield


@contextlib.contextmanager
def frozen(scene: Scene) -> Iterator[None]:
    """Stop all processes of a server: looks at it hang."""
    server = scene.servers[ARCHIVE]
    server.freeze()
    try:
        yield
    finally:
        server.thaw()
