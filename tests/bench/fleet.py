"""Metrics of servers with many clients, from the real core and made-up sessions."""

import contextlib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler

from prometheus_client import generate_latest

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import (
    Client,
    ConnectionLimit,
    DatabaseCounters,
    ServerInfo,
    Session,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.metrics.collector import registry_of
from tests.support.answering import answering
from tests.support.values import NOW, session, snapshot

_POLLS, _INTERVAL = 20, 10.0
_DATABASES = 5
#: Number of roles per server with their own limit.
_LIMITED = 3
#: Number of sites at which a client leaks, and the share of its sessions that has leaked in the end.
_SITES, _LOST = 2, 0.8
_LEAKED = "SELECT * FROM orders WHERE customer_id = 17 /*route='/orders/{}'*/"
_STATES = (SessionState.IDLE, SessionState.ACTIVE, SessionState.IDLE_IN_TRANSACTION)


def server_metrics(name: str, *, clients: int, sessions: int, leaking: int = 0) -> bytes:
    """Return metrics of a server with `clients` clients, `leaking` of them leaking, and `sessions` sessions each."""
    state = ServerState(server=name)
    for poll in range(_POLLS):
        seen = _snapshot(clients, sessions, leaking, poll)
        state, _ = advance(state, seen, policy=Policy(), at=seen.taken_at, duration=0.003)
    return generate_latest(registry_of(lambda: [state]))


def _snapshot(clients: int, sessions: int, leaking: int, poll: int) -> Snapshot:
    at = NOW + poll * _INTERVAL
    server = ServerInfo(
        version_num=180004,
        started_at=NOW - 1e6,
        max_connections=2 * clients * sessions,
        role_limits=tuple(ConnectionLimit(f"app_{client}", 2 * sessions) for client in range(_LIMITED)),
    )
    return snapshot(
        *(
            _session(client, number, sessions, poll, leaks=client < leaking)
            for client in range(clients)
            for number in range(sessions)
        ),
        at=at,
        server=server,
        databases=[_counters(number, poll) for number in range(_DATABASES)],
    )


def _session(client: int, number: int, sessions: int, poll: int, *, leaks: bool) -> Session:
    who = Client(f"shop_{client % _DATABASES}", f"app_{client}", f"orders-{client}")
    lost_at = int(_POLLS / 2 * number / sessions)  # the poll at which it leaks
    lost = leaks and number < _LOST * sessions and poll >= lost_at
    at = NOW + (lost_at if lost else poll) * _INTERVAL
    state = SessionState.IDLE_IN_TRANSACTION if lost else _STATES[number % len(_STATES)]
    query = _LEAKED.format(number % _SITES) if lost else "ROLLBACK" if state is SessionState.IDLE else "SELECT 1"
    return session(client * sessions + number + 1, state, client=who, since=at - 1, born=NOW - 1000, query=query)


def _counters(number: int, poll: int) -> DatabaseCounters:
    return DatabaseCounters(
        database=f"shop_{number}",
        established=100 * poll,
        abandoned=poll,
        fatal=0,
        killed=0,
        session_seconds=1000.0 * poll,
        active_seconds=100.0 * poll,
        idle_in_transaction_seconds=10.0 * poll,
    )


@contextlib.contextmanager
def serve_pages(pages: Mapping[str, bytes]) -> Iterator[str]:
    """Serve pages by their paths, and yield host:port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            page = pages[self.path]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as address:
        yield address
