"""Faults of the network: connections are cut, silent, slow or garbled, and names and certificates change."""

import contextlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tests.faults.fault import Fault, Seen
from tests.faults.scene import Scene
from tests.support.proxy import inverted

_MANY = 250


@contextlib.contextmanager
def _cut(scene: Scene) -> Iterator[None]:
    scene.proxy.cut()
    yield


@contextlib.contextmanager
def _half_open(scene: Scene) -> Iterator[None]:
    scene.proxy.lose_servers()
    yield


@contextlib.contextmanager
def _black_hole(scene: Scene) -> Iterator[None]:
    scene.proxy.black_hole()
    yield
    scene.proxy.resume()


@contextlib.contextmanager
def _latency(scene: Scene) -> Iterator[None]:
    scene.proxy.latency = 0.25
    yield
    scene.proxy.latency = 0.0


@contextlib.contextmanager
def _latency_and_cut(scene: Scene) -> Iterator[None]:
    with _latency(scene), _cut(scene):
        yield


@contextlib.contextmanager
def _slow_link(scene: Scene) -> Iterator[None]:
    scene.proxy.bytes_per_second = 10_000
    yield
    scene.proxy.bytes_per_second = math.inf


@contextlib.contextmanager
def _slow_link_and_many_sessions(scene: Scene) -> Iterator[None]:
    """Let each poll transfer 250 kB, which takes 25 s, if it asks for the statements."""
    with scene.strangers(_MANY), _slow_link(scene):
        yield


@contextlib.contextmanager
def _reset_in_a_message(scene: Scene) -> Iterator[None]:
    scene.proxy.reset_after = 100
    yield


@contextlib.contextmanager
def _garbage(scene: Scene) -> Iterator[None]:
    scene.proxy.answer = inverted
    yield
    scene.proxy.answer = bytes


@contextlib.contextmanager
def _certificate_expired(scene: Scene) -> Iterator[None]:
    scene.identity.renew(valid_until=datetime.now(UTC) - timedelta(days=1))
    scene.proxy.cut()
    yield
    scene.identity.renew()


@contextlib.contextmanager
def _server_moved(scene: Scene) -> Iterator[None]:
    """Let the server listen at another address, and the name follow later."""
    scene.server.restart(listen_addresses="127.0.0.2")
    yield
    scene.resolve_to("127.0.0.2")


_LOST = frozenset({"network"})
_SILENT = frozenset({"timeout"})

FAULTS = (
    Fault(name="connection cut", make=_cut, seen=Seen.AGAIN, reasons=_LOST, is_behind_proxy=True),
    Fault(name="connection half open", make=_half_open, seen=Seen.AGAIN, reasons=_SILENT, is_behind_proxy=True),
    Fault(name="black hole", make=_black_hole, seen=Seen.NEVER, reasons=_SILENT, is_behind_proxy=True),
    Fault(name="500 ms latency", make=_latency, seen=Seen.ALWAYS, is_behind_proxy=True, timeout=5),
    Fault(
        name="500 ms latency, and connection cut",
        make=_latency_and_cut,
        seen=Seen.AGAIN,
        reasons=_LOST | _SILENT,
        is_behind_proxy=True,
        timeout=5,
    ),
    Fault(name="10 kB/s", make=_slow_link, seen=Seen.ALWAYS, is_behind_proxy=True, timeout=5),
    Fault(
        name=f"10 kB/s, and {_MANY} sessions",
        make=_slow_link_and_many_sessions,
        seen=Seen.AGAIN,
        polls_lost=3,
        reasons=_SILENT,
        is_behind_proxy=True,
        timeout=5,
        settings={"max_connections": str(_MANY + 20)},
    ),
    Fault(
        name="reset in a message",
        make=_reset_in_a_message,
        seen=Seen.AGAIN,
        reasons=_LOST,
        is_behind_proxy=True,
    ),
    Fault(
        name="garbage",
        make=_garbage,
        seen=Seen.NEVER,
        reasons=_LOST | _SILENT | {"protocol"},
        is_behind_proxy=True,
    ),
    Fault(
        name="certificate expired",
        make=_certificate_expired,
        seen=Seen.NEVER,
        reasons=_LOST,
        is_behind_proxy=True,
        has_tls=True,
        timeout=2,
    ),
    Fault(
        name="server moved, and name later", make=_server_moved, seen=Seen.NEVER, reasons=_LOST, sessions_survive=False
    ),
)
