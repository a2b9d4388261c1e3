"""TCP ports for tests: free ones, ones that behave badly, and the sockets that are connected to one."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pgwatch_sessions.demo.postgres import PORTS


def free_port() -> int:
    """Return a port on which nothing listens, and which no client is given by chance."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.choice(PORTS)))
            return int(probe.getsockname()[1])


@contextlib.contextmanager
def port_without_answer(address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Yield a port that answers no SYN, as behind a firewall that drops packets: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


@contextlib.contextmanager
def port_that_sends(answer: bytes) -> Iterator[int]:
    """Yield a port whose clients all get this answer to the first thing that they send, and nothing after it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as clients:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the listener is shut down
                while True:
                    client, _ = listener.accept()
                    clients.enter_context(client)
                    client.recv(1)
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


class ClientSocket(NamedTuple):
    """A TCP socket that is connected or connecting to a port of this machine."""

    #: Its own port.
    port: int
    #: Whether the kernel probes the other end while nothing is sent.
    keepalive: bool


def sockets_to(port: int) -> list[ClientSocket]:
    """Return the client sockets to this port, of all programs."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        # The fields are described in the kernel's Documentation/networking/proc_net_tcp.rst.
        _, local, remote, state, _, timer, *_ = line.split()
        established_or_syn_sent = state in {"01", "02"}
        if int(remote.partition(":")[2], 16) == port and established_or_syn_sent:
            found.append(ClientSocket(int(local.partition(":")[2], 16), timer.startswith("02:")))
    return found
