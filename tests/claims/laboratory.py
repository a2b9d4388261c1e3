"""Where claims are tried: a server, a database for each claim, and the daemon's own recording of what happens there."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from pgwatch_sessions.demo.child_process import child_process, temporary_folder
from pgwatch_sessions.demo.postgres import Postgres
from tests.claims.replayed import Replayed, replayed
from tests.support.servers import Database, fresh_database
from tests.support.waiting import until

T = TypeVar("T")

#: For the server of all claims. Each claim has runs of up to 30 connections at the same time.
SERVER_SETTINGS = {"max_connections": "300"}
_INTERVAL = "200ms"
_TABLES = (
    "CREATE TABLE orders AS SELECT id, 100 * id AS total FROM generate_series(1, 100) AS id",
    "CREATE TABLE items AS SELECT id, id AS order_id, 50 AS price, 2 AS quantity FROM generate_series(1, 90) AS id",
    "ALTER TABLE orders ADD PRIMARY KEY (id)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Laboratory:
    """What every experiment is given."""

    server: Postgres
    #: Shows a line of progress.
    report: Callable[[str], None]


class Watched:
    """A database that the daemon's recorder watches."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: What the daemon makes of the recording; set when the recording has ended.
        self.replayed = Replayed(database=database.name)

    def dsn(self, application: str, *, user: str = "postgres") -> str:
        """Return the connection URI for one run; the run's name is its application_name."""
        return self._database.dsn(user=user, application_name=application)

    def states(self, application: str) -> dict[str, int]:
        """Return how many sessions of a run are in which state now."""
        with psycopg.connect(self._database.dsn(application_name="claims"), autocommit=True) as connection:
            rows = connection.execute(
                "SELECT state, count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = %s GROUP BY state",
                [application],
            )
            return {str(state): count for state, count in rows}

    def idle_in_transaction(self, application: str) -> int:
        """Return how many sessions of a run are idle in transaction now."""
        return self.states(application).get("idle in transaction", 0)

    def sessions(self, application: str) -> int:
        """Return how many sessions a run has now."""
        return sum(self.states(application).values())


@contextlib.contextmanager
def watched_database(laboratory: Laboratory, claim: str) -> Iterator[Watched]:
    """Create a database with orders for a claim, and record what happens on it until the block ends."""
    name = claim.replace("-", "_")
    with fresh_database(laboratory.server, name) as database, temporary_folder() as folder:
        with psycopg.connect(database.dsn(), autocommit=True) as connection:
            for statement in _TABLES:
                connection.execute(statement)
        watched = Watched(database)
        file = folder.path / "polls.jsonl"
        command = [sys.executable, "-m", "pgwatch_sessions", "record", f"--out={file}", f"--interval={_INTERVAL}"]
        with child_process([*command, f"--dsn={database.dsn()}"], log=folder.path / "log"):
            until(lambda: file.exists() and file.stat().st_size > 0, within=30)
            yield watched
        watched.replayed = replayed(file, database.name)


def at_the_same_time(runs: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Start all runs at once, each in its own thread, and return their results by name."""
    with ThreadPoolExecutor(len(runs)) as threads:
        started = {name: threads.submit(run) for name, run in runs.items()}
        return {name: run.result() for name, run in started.items()}
