"""Counts logins that failed, and logs them in a bounded number of lines, without anything that a client has sent."""

from collections.abc import Callable

import structlog

from pgwatch_sessions.logs import log_line
from pgwatch_sessions.wording.event_lines import login_failed_line

_MAX_ADDRESSES = 16
_PERIOD_SECONDS = 60.0


class FailedLogins:
    """The first failure of an address is logged at once, all that follow within a minute together at its end."""

    def __init__(self, call_later: Callable[[float, Callable[[str], None], str], object]) -> None:
        """`call_later` is that of the event loop."""
        self.total = 0
        self._call_later = call_later
        #: How many failures of each address are not logged yet.
        self._unsaid: dict[str, int] = {}

    def add(self, address: str) -> None:
        """Count and log a failure. With very many addresses at once, those that come last are logged together."""
        self.total += 1
        if address not in self._unsaid and len(self._unsaid) >= _MAX_ADDRESSES:
            address = "other addresses"
        if address in self._unsaid:
            self._unsaid[address] += 1
        else:
            self._say(address, 1)

    def _say(self, address: str, failed: int) -> None:
        line = login_failed_line(address, failed)
        log_line(structlog.get_logger(), "login_failed", line, {"address": address, "failed": failed})
        self._unsaid[address] = 0
        self._call_later(_PERIOD_SECONDS, self._end_period, address)

    def _end_period(self, address: str) -> None:
        if failed := self._unsaid.pop(address):
            self._say(address, failed)
