"""Cost of a scrape: the first one of a published state renders it, later ones serve the same bytes."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from statistics import mean, median, quantiles
from typing import NamedTuple
from urllib.parse import urlsplit

from prometheus_client import generate_latest

from pgwatch_sessions import __version__
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client, SessionState
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.metrics.collector import registry_of
from pgwatch_sessions.published_states import PublishedStates
from pgwatch_sessions.web.app import Health, web_app
from pgwatch_sessions.web.http_server import bind, serving, url
from tests.bench.processes import child, cpu_ms
from tests.bench.tables import Limit, limits, table
from tests.support.values import NOW, session, snapshot

_SERIES = (500, 5_000)
_ROUNDS = 20
_SCRAPES_PER_ROUND = 100
_FORMS = {
    "text": "Accept: text/plain; version=0.0.4",
    # The headers that Prometheus sends.
    "OpenMetrics, gzip": "Accept: application/openmetrics-text; version=1.0.0\r\nAccept-Encoding: gzip",
}
_OK = Health(ok=True, reason="ok")


class Costs(NamedTuple):
    """Costs of scrapes in one format, in milliseconds each."""

    bytes: int
    first: list[float]
    cached: list[float]
    #: CPU of the serving process per cached scrape.
    cpu: float


def bench() -> Iterator[str]:
    """Serve states of two sizes from another process, through the real web side."""
    costs: dict[tuple[int, str], Costs] = {}
    for wanted in _SERIES:
        with child(_serve, wanted) as server:
            address, pid, series = server.recv()
            for form, headers in _FORMS.items():
                costs[series, form] = _measure_scrapes(server, urlsplit(address).netloc, pid, headers)
    rows = [[form, series, c.bytes, median(c.first), *_spread(c.cached), c.cpu] for (series, form), c in costs.items()]
    header = ["", "series", "bytes", "first", "cached: p50", "p99", "server CPU"]
    yield table(f"scrape: {_ROUNDS * _SCRAPES_PER_ROUND:,} cached scrapes of each, ms", header, rows)
    few = min(series for series, _ in costs)
    yield limits(
        *(
            Limit(
                what=f"{few} series, {form}: cached, p50", measured=median(costs[few, form].cached), bound=1, unit=" ms"
            )
            for form in _FORMS
        )
    )


def _spread(values: list[float]) -> tuple[float, float]:
    return median(values), quantiles(values, n=100)[-1]


def _measure_scrapes(server: Connection, netloc: str, pid: int, headers: str) -> Costs:
    request = f"GET /metrics HTTP/1.1\r\nHost: {netloc}\r\n{headers}\r\n\r\n".encode()
    host, port = netloc.split(":")
    first: list[float] = []
    cached: list[float] = []
    cpu: list[float] = []
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        size = _get(connection, request)
        for _ in range(_ROUNDS):
            server.send("publish")
            server.recv()
            first.append(_milliseconds(lambda: _get(connection, request)))
            before = cpu_ms(pid)
            cached.extend(_milliseconds(lambda: _get(connection, request)) for _ in range(_SCRAPES_PER_ROUND))
            cpu.append((cpu_ms(pid) - before) / _SCRAPES_PER_ROUND)
    return Costs(bytes=size, first=first, cached=cached, cpu=mean(cpu))


def _milliseconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return (time.perf_counter() - begun) * 1000


def _get(connection: socket.socket, request: bytes) -> int:
    """Send a request, read the response, and return the size of the body, with as little client CPU as possible."""
    connection.sendall(request)
    head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    size = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1])
    left = size - len(body)
    while left:
        left -= len(connection.recv(left))
    return size


def _serve(parent: Connection, wanted: int) -> None:
    asyncio.run(_serving(parent, wanted))


async def _serving(parent: Connection, wanted: int) -> None:
    """Serve a state with about `wanted` series, and publish it again at each message of the parent."""
    board = PublishedStates(["bench"])
    state, series = _state(wanted)
    board.publish(state)
    registry = registry_of(lambda: board.states().values())
    app = web_app(
        version=__version__,
        registry=registry,
        states=board.states,
        health=lambda: _OK,
        readiness=lambda: _OK,
    )
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def on_message() -> None:
        try:
            parent.recv()
        except EOFError:
            loop.remove_reader(parent.fileno())
            ended.set()
        else:
            board.publish(replace(state))
            parent.send("published")

    listener = bind("127.0.0.1", 0)
    async with serving(app, listener):
        parent.send((url(listener), os.getpid(), series))
        loop.add_reader(parent.fileno(), on_message)
        await ended.wait()


def _state(wanted: int) -> tuple[ServerState, int]:
    """Return a state with at least `wanted` series, and their number."""
    clients = wanted // 20
    while True:
        state = _state_of(clients)
        series = _series(state)
        if series >= wanted:
            return state, series
        clients += max(1, (wanted - series) // 20)


def _series(state: ServerState) -> int:
    lines = generate_latest(registry_of(lambda: [state])).splitlines()
    return sum(not line.startswith(b"#") for line in lines)


def _state_of(clients: int) -> ServerState:
    state = ServerState(server="bench")
    sessions = [
        session(client * 3 + number, kind, client=Client(f"shop_{client % 5}", f"app_{client % 7}", f"orders-{client}"))
        for client in range(clients)
        for number, kind in enumerate((SessionState.IDLE, SessionState.IDLE_IN_TRANSACTION, SessionState.ACTIVE))
    ]
    policy = Policy(max_clients=clients)
    state, _ = advance(state, snapshot(*sessions), policy=policy, at=NOW, duration=0.003)
    return state
