"""The command line and the HTTP server that all services share."""

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn


@dataclass(frozen=True)
class Options:
    """What a service is started with. The pool's numbers are SQLAlchemy's."""

    dsn: str
    form: str
    size: int
    overflow: int
    #: Seconds.
    timeout: float


def serve(application_of: Callable[[Options], Any]) -> None:
    """Serve the application on a free port until SIGTERM; the first line of output is the address."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--form", default="")
    parser.add_argument("--size", type=int, default=5)
    parser.add_argument("--overflow", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=30.0)
    application = application_of(Options(**vars(parser.parse_args())))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(application, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
