"""What tests add to a daemon: Python runs this file at its start if this folder is on PYTHONPATH.

* At SIGUSR1 the process writes its asyncio tasks and its threads to the file that INSIDE_FILE names.
* If HOSTS_FILE is set, names are looked up there first, in the form of /etc/hosts. It is read at each look-up.
"""

import asyncio
import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

_getaddrinfo = socket.getaddrinfo


def _tell(*_: object) -> None:
    """Write one line of JSON. Signals are handled in the main thread, where the event loop runs."""
    inside = {
        "tasks": sorted(str(task.get_coro().__qualname__) for task in asyncio.all_tasks()),  # type: ignore[union-attr]  # coroutines have one
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }
    file = Path(os.environ["INSIDE_FILE"])
    new = file.with_suffix(".new")
    new.write_text(json.dumps(inside))
    new.rename(file)


def _resolve(host: Any, *arguments: Any, **options: Any) -> Any:
    for line in Path(os.environ["HOSTS_FILE"]).read_text().splitlines():
        address, name = line.split()
        if name == host:
            host = address
    return _getaddrinfo(host, *arguments, **options)


if "INSIDE_FILE" in os.environ:
    signal.signal(signal.SIGUSR1, _tell)
if "HOSTS_FILE" in os.environ:
    socket.getaddrinfo = _resolve
