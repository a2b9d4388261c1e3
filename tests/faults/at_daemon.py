"""Faults of the daemon's own process, its HTTP clients and its disk."""

import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.faults.fault import Fault, Seen
from tests.faults.scene import Scene

_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_CLIENTS = 200
_STRANGERS = 150
#: Room for six threads, whose stacks have 8 MiB each, and for those sessions.
_MORE_BYTES = 64 * 1024 * 1024


@contextlib.contextmanager
def _killed(scene: Scene) -> Iterator[None]:
    scene.daemon.kill()
    yield
    scene.daemon.start()


@contextlib.contextmanager
def _stopped(scene: Scene) -> Iterator[None]:
    """Stop the process, as a machine does that is suspended or out of processor time."""
    os.kill(scene.daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(scene.daemon.pid, signal.SIGCONT)


@contextlib.contextmanager
def _out_of_descriptors(scene: Scene) -> Iterator[None]:
    taken = {int(descriptor.name) for descriptor in Path(f"/proc/{scene.daemon.pid}/fd").iterdir()}
    first_free = next(number for number in itertools.count() if number not in taken)
    with _limited(scene, resource.RLIMIT_NOFILE, first_free):
        yield


@contextlib.contextmanager
def _limited(scene: Scene, what: int, limit: int) -> Iterator[None]:
    before = resource.prlimit(scene.daemon.pid, what)
    resource.prlimit(scene.daemon.pid, what, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(scene.daemon.pid, what, before)


@contextlib.contextmanager
def _scrapers(scene: Scene) -> Iterator[None]:
    """Scrape without a pause over many connections."""
    ended = threading.Event()
    host, _, port = scene.daemon.address.partition(":")

    async def scrape() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    writer.write(_REQUEST)
                    await reader.read()
                finally:
                    writer.transport.abort()

    async def scrape_in_parallel() -> None:
        await asyncio.gather(*(scrape() for _ in range(_CLIENTS)))

    thread = threading.Thread(target=asyncio.run, args=(scrape_in_parallel(),), name="scrapers")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _slowloris(scene: Scene) -> Iterator[None]:
    """Connect often, and send a request byte by byte."""
    ended = threading.Event()
    host, _, port = scene.daemon.address.partition(":")

    def trickle() -> None:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(_CLIENTS)]
            for byte in _REQUEST:
                for client in clients:
                    with contextlib.suppress(OSError):  # it was closed
                        client.send(bytes([byte]))
                if ended.wait(0.2):
                    return

    thread = threading.Thread(target=trickle, name="slowloris")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _records_deleted(scene: Scene) -> Iterator[None]:
    shutil.rmtree(scene.record_dir)
    yield


@contextlib.contextmanager
def _records_full(scene: Scene) -> Iterator[None]:
    """Leave no room on the disk of the recordings."""
    filler = scene.record_dir / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    with scene.strangers(10):  # more than what is left of the page that was begun
        yield
    filler.unlink()


@contextlib.contextmanager
def _memory_limited(scene: Scene) -> Iterator[None]:
    """Let the process have little more memory than it has, threads included, while there is more to remember."""
    status = Path(f"/proc/{scene.daemon.pid}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize:"))
    with _limited(scene, resource.RLIMIT_AS, kib * 1024 + _MORE_BYTES), scene.strangers(_STRANGERS):
        yield


FAULTS = (
    Fault(name="SIGKILL of the daemon", make=_killed, seen=Seen.UNANSWERED),
    Fault(name="SIGSTOP of the daemon", make=_stopped, seen=Seen.UNANSWERED, reasons=frozenset({"timeout"})),
    Fault(name="out of descriptors", make=_out_of_descriptors, seen=Seen.UNANSWERED),
    Fault(name=f"{_CLIENTS} scrapers", make=_scrapers, seen=Seen.ALWAYS, scrapes_may_fail=True),
    Fault(name="slowloris", make=_slowloris, seen=Seen.ALWAYS),
    Fault(
        name="memory limit",
        make=_memory_limited,
        seen=Seen.ALWAYS,
        settings={"max_connections": str(_STRANGERS + 20)},
    ),
    Fault(
        name="disk of records full",
        make=_records_full,
        seen=Seen.ALWAYS,
        logged=("recording_failed", "recording_resumed"),
        has_small_disk=True,
    ),
    Fault(
        name="records deleted",
        make=_records_deleted,
        seen=Seen.ALWAYS,
        logged=("recording_failed",),
    ),
)
