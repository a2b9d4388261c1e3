"""Ports for programs that have to be told one."""

import contextlib
import random
import socket

from pgwatch_sessions.demo.postgres import PORTS


def free_port() -> int:
    """Return a port on which nothing listens, and which no client is given by chance."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.choice(PORTS)))
            return int(probe.getsockname()[1])
