"""Remembers how many sessions each origin had, so that growth can be told from sessions that replace each other."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from pgwatch_sessions.core.history.tracks import Origin, Track
from pgwatch_sessions.core.model import SessionId

#: Spans that are kept of an origin.
_MAX_SPANS = 24


class Span(NamedTuple):
    """The least number of sessions that an origin had in a span of time."""

    begin: float
    least: int


class OriginSizes(NamedTuple):
    """How many sessions an origin had since it was first seen. A restart of all its processes begins anew."""

    first_seen_at: float
    #: In order, all of the same length; the last one is still going on.
    spans: tuple[Span, ...]

    def add(self, at: float, sessions: int, *, length: float) -> "OriginSizes":
        """Return the sizes after one more poll; a span lasts `length` seconds."""
        last = self.spans[-1]
        if last.begin <= at < last.begin + length:
            return self._replace(spans=(*self.spans[:-1], Span(last.begin, min(last.least, sessions))))
        kept = [span for span in self.spans if span.begin < at]  # the server's clock may have been set back
        return self._replace(spans=(*kept[-(_MAX_SPANS - 1) :], Span(at, sessions)))


def follow_sizes(
    sizes: Mapping[Origin, OriginSizes],
    before: Mapping[SessionId, Track],
    after: Mapping[SessionId, Track],
    *,
    at: float,
    length: float,
) -> Mapping[Origin, OriginSizes]:
    """Return the sizes of every origin that has sessions after a poll `at` this time."""
    counts = Counter(track.origin for track in after.values())
    remaining = {track.origin for identity, track in after.items() if identity in before}
    return {
        origin: sizes[origin].add(at, count, length=length)
        if origin in sizes and origin in remaining
        else OriginSizes(at, (Span(at, count),))
        for origin, count in counts.items()
    }
