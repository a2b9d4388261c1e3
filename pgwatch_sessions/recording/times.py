"""Times as text, exact to the microsecond both ways."""

from datetime import UTC, datetime
from functools import lru_cache

_LONGEST = 64


# The times of a session that did not move are the same at each poll.
@lru_cache(maxsize=8192)
def seconds_of(text: str) -> float:
    """Return the seconds since the epoch of an ISO 8601 time; ValueError when it is none, or has no time zone."""
    if len(text) > _LONGEST:
        raise ValueError("too long for a time")
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("no time zone")
    return time.timestamp()


@lru_cache(maxsize=8192)
def text_of(seconds: float) -> str:
    """Write a time in UTC as PostgreSQL's JSON does."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
