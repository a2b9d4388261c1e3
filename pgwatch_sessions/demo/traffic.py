"""Sends requests to the sample service at a steady pace and counts their outcomes."""

import asyncio
import itertools
from collections import Counter
from enum import Enum, auto
from urllib.parse import urlsplit

#: Every route of the service, with valid orders only.
_ROUTES = ("/customers", "/orders/1", "/orders?customer=1", "/orders/3", "/orders?customer=2")
#: This customer has an order with an unknown currency.
_BAD_REQUEST = "/orders?customer=7"
_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 10.0


class Outcome(Enum):
    """The outcome of a request."""

    ANSWERED = auto()
    #: 503: no connection came free in time.
    REFUSED = auto()
    #: Any other status: the handler failed.
    FAILED = auto()
    #: Nothing listened, or the service stopped before it answered.
    UNREACHED = auto()


_OUTCOMES = {200: Outcome.ANSWERED, 503: Outcome.REFUSED}


class Traffic:
    """Requests that keep coming, whatever their outcome."""

    def __init__(self) -> None:
        """Send nothing until there is an address."""
        #: The address of the service, such as http://127.0.0.1:8080; it changes when the service is deployed again.
        self.address: str | None = None
        #: Seconds between two requests for the invalid order; None sends none.
        self.bad_every: float | None = None
        self.outcomes = Counter[Outcome]()

    async def flow(self) -> None:
        """Send requests until cancelled, without waiting for their answers."""
        async with asyncio.TaskGroup() as requests:
            requests.create_task(self._flow_bad(requests))
            for path in itertools.cycle(_ROUTES):
                if self.address:
                    requests.create_task(self._request(self.address, path))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _flow_bad(self, requests: asyncio.TaskGroup) -> None:
        while True:
            if self.address and self.bad_every:
                requests.create_task(self._request(self.address, _BAD_REQUEST))
            await asyncio.sleep(self.bad_every or _PAUSE_SECONDS)

    async def _request(self, address: str, path: str) -> None:
        try:
            status, _ = await get(address, path)
        except (OSError, TimeoutError):
            self.outcomes[Outcome.UNREACHED] += 1
        else:
            self.outcomes[_OUTCOMES.get(status, Outcome.FAILED)] += 1


async def get(address: str, path: str) -> tuple[int, bytes]:
    """Return the status and the body of an answer; OSError or TimeoutError if there is none."""
    host = urlsplit(address)
    async with asyncio.timeout(_PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection(host.hostname, host.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host.netloc}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    if not head:
        raise ConnectionResetError("the service ended before it answered")
    return int(head.split(maxsplit=2)[1]), body
