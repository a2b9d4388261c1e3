"""Times as text and back, exact to the microsecond."""

from datetime import UTC, datetime
from functools import lru_cache

_MAX_LENGTH = 64


# Most times of a session are the same in its next poll.
@lru_cache(maxsize=8192)
def seconds_of(text: str) -> float:
    """Return an ISO 8601 time as seconds since the epoch. ValueError if it is invalid or has no time zone."""
    if len(text) > _MAX_LENGTH:
        raise ValueError("too long for a time")
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("no time zone")
    return time.timestamp()


@lru_cache(maxsize=8192)
def text_of(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC, like PostgreSQL's JSON: 2026-11-21T03:44:31.698236+00:00."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
