"""How the sessions of each client changed in the last minutes, and sparklines of it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pgwatch_sessions.top.view import ClientId, View

#: How far back a sparkline goes, and the shortest time between two samples, in seconds.
WINDOW = 300.0
_BETWEEN = 1.0
#: Clients with a trend. Each takes up to 300 samples.
_MAX_CLIENTS = 500
_BARS = "▁▂▃▄▅▆▇█"


class Sample(NamedTuple):
    """The sessions of a client at one poll."""

    #: The server's time of the poll, in seconds.
    at: float
    sessions: int
    #: None while some of its sessions are hidden.
    in_transaction: int | None


Trends = Mapping[ClientId, tuple[Sample, ...]]
NO_TRENDS: Trends = {}


def remember(trends: Trends, view: View) -> Trends:
    """Return the samples of the last five minutes, with those of this view added.

    Clients that are gone are dropped, but those of a server stay while it cannot be polled.
    """
    unseen = {server.name for server in view.servers if not server.up}
    remembered = {client: samples for client, samples in trends.items() if client.server in unseen}
    for server in view.servers:
        if server.up and server.polled_at is not None:
            for client in server.clients[:_MAX_CLIENTS]:
                sample = Sample(server.polled_at, client.sessions, client.in_transaction)
                remembered[client.id] = _added(trends.get(client.id, ()), sample)
    return remembered


def _added(samples: tuple[Sample, ...], sample: Sample) -> tuple[Sample, ...]:
    if samples and 0 <= sample.at - samples[-1].at < _BETWEEN:
        return samples
    return (*(each for each in samples if sample.at - WINDOW < each.at < sample.at), sample)


def sparkline(samples: Sequence[tuple[float, int | None]], *, columns: int) -> str:
    """Return the numbers of the last five minutes as bars, the newest on the right; a blank where nothing is known.

    Each bar is the highest number of its time. The highest bar of all is the highest number.
    """
    if not samples:
        return " " * columns
    newest = samples[-1][0]
    highest: list[int | None] = [None] * columns
    for at, number in samples:
        column = columns - 1 - int((newest - at) / WINDOW * columns)
        if number is not None and 0 <= column < columns:
            highest[column] = max(number, highest[column] or 0)
    top = max((number for number in highest if number is not None), default=0)
    return "".join(" " if number is None else _bar(number, top) for number in _filled(highest))


def _filled(numbers: Sequence[int | None]) -> Sequence[int | None]:
    """Repeat each number until the next one, because polls may be further apart than columns."""
    filled: list[int | None] = []
    for number in numbers:
        filled.append(filled[-1] if number is None and filled else number)
    return filled


def _bar(number: int, top: int) -> str:
    return _BARS[-(-number * (len(_BARS) - 1) // top) if top else 0]
