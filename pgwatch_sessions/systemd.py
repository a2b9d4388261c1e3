"""Messages to systemd, for units with `Type=notify` and `WatchdogSec=`: see sd_notify(3)."""

import contextlib
import socket
from collections.abc import Mapping


class Systemd:
    """The service manager that has started this process; silent if it is another one."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        """Find the socket of systemd in the environment. `pid` is that of this process."""
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path  # an abstract socket has no file
        watches = environment.get("WATCHDOG_PID", str(pid)) == str(pid) and "WATCHDOG_USEC" in environment
        self._alive = "WATCHDOG=1" if watches else ""

    def ready(self) -> None:
        """Say that the daemon listens and polls."""
        self._send("READY=1")

    def alive(self) -> None:
        """Say that the daemon works, if systemd wants to know. If it hears nothing for WatchdogSec, it kills us."""
        self._send(self._alive)

    def stopping(self) -> None:
        """Say that the daemon ends in order."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._address and message:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.sendto(message.encode(), self._address)
