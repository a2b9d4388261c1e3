"""Times as text and back, exact to the microsecond."""

from datetime import UTC, datetime
from functools import lru_cache

from pgwatch_sessions.core.model import END_OF_TIME

_MAX_LENGTH = 64


# Most times of a session are the same in its next poll.
@lru_cache(maxsize=8192)
def seconds_of(text: str) -> float:
    """Return an ISO 8601 time as seconds since the epoch. ValueError if it is invalid or has no time zone.

    OverflowError if it is not between the years 1970 and 2999: it could not be written in every time zone, and what
    is added to it, such as a forecast, could not be written at all.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError("too long for a time")
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("no time zone")
    seconds = time.timestamp()
    if not 0 <= seconds < END_OF_TIME:
        raise OverflowError("not between 1970 and 2999")
    return seconds


@lru_cache(maxsize=8192)
def text_of(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC, like PostgreSQL's JSON: 2026-11-21T03:44:31.698236+00:00."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
