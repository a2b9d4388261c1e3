"""The claim on asyncpg connections that are never closed."""

import time
from collections import Counter
from functools import partial

from tests.claims.claim import Claim, Outcome, verdict_of
from tests.claims.laboratory import Laboratory, Watched, at_the_same_time, watched_database
from tests.claims.running import service, shown

_REQUESTS = 12
_REST_SECONDS = 3.0
_RUNS = {
    "connect, early return": "/connect-early-return",
    "connect, exception": "/connect-exception",
    "connect, kept in a list": "/connect-kept",
    "pool.acquire, never released": "/acquire",
    "pool.acquire in a with block": "/fixed",
}


def _asyncpg_connect(laboratory: Laboratory) -> Outcome:
    with watched_database(laboratory, "asyncpg-connect") as watched:
        runs = at_the_same_time({name: partial(_states_after, watched, name, path) for name, path in _RUNS.items()})
    left = {name: sum(states.values()) for name, (_, states) in runs.items()}
    early, exception, kept, acquired, fixed = left.values()
    rows = [(name, shown(answers), left[name], shown(states)) for name, (answers, states) in runs.items()]
    return Outcome(
        header=("run", "answers by status", "sessions 3 s later", "their state"),
        rows=rows,
        said={name: watched.replayed.said(name) for name in runs},
        verdict=verdict_of(early == _REQUESTS, exception == _REQUESTS, kept == _REQUESTS, fixed <= 1),
        reason=(
            f"A connection in a local variable is closed when CPython drops the last reference to it: {early} and "
            f"{exception} sessions were left. It leaks where something keeps a reference ({kept} left). What always "
            f"leaks is `pool.acquire()` without a release ({acquired} left), because the pool refers to it. Without a "
            "transaction the leaked sessions are idle, so a count of sessions idle in transaction does not see them."
        ),
    )


def _states_after(watched: Watched, name: str, path: str) -> tuple[Counter[str], dict[str, int]]:
    """Return how the requests were answered, and the states of the sessions after a rest."""
    with service("asyncpg_handlers", watched.dsn(name), size=20, overflow=0) as handlers:
        answers = handlers.visit(path, times=_REQUESTS, pause=0.25)
        time.sleep(_REST_SECONDS)
        return answers, watched.states(name)


CLAIMS = (
    Claim(
        name="asyncpg-connect",
        text=(
            "A write-up on FastAPI leaks claims that a handler which calls `asyncpg.connect()` leaks the connection "
            "when it returns early or raises before `close()`, and that a pool with a context manager does not leak."
        ),
        experiment=(
            f"Five services get {_REQUESTS} requests each. 3 s after the last one, their sessions on the server are "
            "counted."
        ),
        attempt=_asyncpg_connect,
    ),
)
