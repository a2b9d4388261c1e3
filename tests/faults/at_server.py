"""Faults of the server: it stops, crashes, hangs, is full or slow."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import psycopg

from tests.faults.fault import Fault, Seen
from tests.faults.scene import DATABASE, END_OURS, Scene
from tests.support.situations import locked_catalog
from tests.support.waiting import until

_GONE = frozenset({"network", "starting_up"})
_SMALL = {"max_connections": "12", "superuser_reserved_connections": "2"}


@contextlib.contextmanager
def _stopped_smart(scene: Scene) -> Iterator[None]:
    scene.server.stop_smart()
    yield
    scene.server.restart()


@contextlib.contextmanager
def _stopped_fast(scene: Scene) -> Iterator[None]:
    scene.server.stop()
    yield
    scene.server.start()


@contextlib.contextmanager
def _stopped_immediately(scene: Scene) -> Iterator[None]:
    scene.server.crash()
    yield
    scene.server.start()


@contextlib.contextmanager
def _restarted(scene: Scene) -> Iterator[None]:
    scene.server.restart()
    yield


@contextlib.contextmanager
def _crashed_backend(scene: Scene) -> Iterator[None]:
    """End all sessions: the server restarts by itself when one of its processes was killed."""
    os.kill(scene.leaked[0], signal.SIGKILL)
    yield


@contextlib.contextmanager
def _frozen(scene: Scene) -> Iterator[None]:
    scene.server.freeze()
    try:
        yield
    finally:
        scene.server.thaw()


@contextlib.contextmanager
def _frozen_postmaster(scene: Scene) -> Iterator[None]:
    with _signalled(scene.server.server.pid):
        yield


@contextlib.contextmanager
def _frozen_backend(scene: Scene) -> Iterator[None]:
    with _signalled(*scene.ours()):
        yield


@contextlib.contextmanager
def _signalled(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _full(scene: Scene) -> Iterator[None]:
    """Take all slots that ordinary roles have left."""
    dsn = scene.server.dsn(database=DATABASE, user="app", application_name="another")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.callback(psycopg.connect(dsn).close)
        yield


@contextlib.contextmanager
def _full_without_us(scene: Scene) -> Iterator[None]:
    """Take all slots, and ours too when our session is ended."""
    with _full(scene), contextlib.ExitStack() as stack:
        dsn = scene.server.dsn(database=DATABASE, user="app", application_name="another")

        def replaced() -> bool:
            scene.end_ours()
            with contextlib.suppress(psycopg.OperationalError):
                stack.callback(psycopg.connect(dsn).close)
                return True
            return False

        until(replaced)
        yield


@contextlib.contextmanager
def _slow(scene: Scene) -> Iterator[None]:
    """Let our backend run for one millisecond in a hundred, by stopping it in between."""
    ended = threading.Event()

    def throttle() -> None:
        while not ended.is_set():
            for pid in scene.ours():
                with contextlib.suppress(ProcessLookupError), _signalled(pid):
                    ended.wait(0.099)
            time.sleep(0.001)

    thread = threading.Thread(target=throttle, name="throttle")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _locked_statement(scene: Scene) -> Iterator[None]:
    """Let our statements wait, which read pg_database."""
    with locked_catalog(scene.server.dsn(), "pg_database"):
        yield


@contextlib.contextmanager
def _locked_logins(scene: Scene, table: str = "pg_authid") -> Iterator[None]:
    with locked_catalog(scene.server.dsn(database=DATABASE), table) as superuser:
        superuser.execute(END_OURS.encode())
        yield


FAULTS = (
    Fault(name="smart shutdown", make=_stopped_smart, seen=Seen.ALWAYS, reasons=_GONE, sessions_survive=False),
    Fault(name="fast shutdown", make=_stopped_fast, seen=Seen.NEVER, reasons=_GONE, sessions_survive=False),
    Fault(name="immediate shutdown", make=_stopped_immediately, seen=Seen.NEVER, reasons=_GONE, sessions_survive=False),
    Fault(name="restart", make=_restarted, seen=Seen.AGAIN, reasons=_GONE, sessions_survive=False),
    Fault(name="crash of a backend", make=_crashed_backend, seen=Seen.AGAIN, reasons=_GONE, sessions_survive=False),
    Fault(name="server frozen", make=_frozen, seen=Seen.NEVER, reasons=frozenset({"timeout"})),
    Fault(name="postmaster frozen", make=_frozen_postmaster, seen=Seen.ALWAYS),
    Fault(name="our backend frozen", make=_frozen_backend, seen=Seen.AGAIN, reasons=frozenset({"timeout"})),
    Fault(
        name="full before the start",
        make=_full,
        seen=Seen.NEVER,
        reasons=frozenset({"exhausted"}),
        shown={"exhausted": 1},
        before_start=True,
        settings=_SMALL,
    ),
    Fault(name="full after the start", make=_full, seen=Seen.ALWAYS, shown={"exhausted": 1}, settings=_SMALL),
    Fault(
        name="full, and our session ended",
        make=_full_without_us,
        seen=Seen.NEVER,
        reasons=frozenset({"exhausted", "network"}),
        shown={"exhausted": 1},
        settings=_SMALL,
    ),
    Fault(name="our backend 100 times slower", make=_slow, seen=Seen.AGAIN, reasons=frozenset({"timeout"}), timeout=5),
    Fault(
        name="our statement waits for a lock",
        make=_locked_statement,
        seen=Seen.NEVER,
        reasons=frozenset({"timeout"}),
    ),
    Fault(
        name="pg_authid locked",
        make=_locked_logins,
        seen=Seen.NEVER,
        reasons=frozenset({"timeout", "network"}),
    ),
)
