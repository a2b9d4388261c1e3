"""Durations, times and counts, as text for people."""

import math
from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: What `until` returns of a time that has come.
NOW = "now"
#: Rates from here on have no decimals.
_WHOLE = 9.95


def duration(seconds: float) -> str:
    """Return a duration in at most two units: `42 s`, `14 min`, `2 h 5 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < 2 * _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def span(shortest: float, longest: float) -> str:
    """Return the shortest and the longest of several durations: `2 to 5 min`, `80 s to 2 min`, `2 min`."""
    low, high = duration(shortest), duration(longest)
    if low == high:
        return high
    same_unit = low.split()[1:] == high.split()[1:] and low.count(" ") == 1
    return f"{low.split()[0] if same_unit else low} to {high}"


def until(seconds: float) -> str:
    """Return how far away a time is: `now`, `in 14 min`; empty if it never comes."""
    if math.isinf(seconds):
        return ""
    return f"in {duration(seconds)}" if round(seconds) > 0 else NOW


def until_full(seconds: float) -> str:
    """Return when a limit is reached: `now`, `in 14 min`, or `not at this rate`."""
    return until(seconds) or "not at this rate"


def ago(seconds: float) -> str:
    """Return how long ago a time was: `just now`, `14 min ago`."""
    return f"{duration(seconds)} ago" if round(seconds) > 0 else "just now"


def growth(per_minute: float) -> str:
    """Return how fast sessions join: `2.4 more per minute`, `18 more per hour`; empty below one per hour."""
    number, unit = (per_minute, "minute") if per_minute >= 1 else (60 * per_minute, "hour")
    if number < 1:
        return ""
    return f"{f'{number:,.0f}' if number >= _WHOLE else f'{number:.1f}'.removesuffix('.0')} more per {unit}"


def moment(seconds: float) -> str:
    """Return a time given in seconds since the epoch: `2026-11-21 03:04:05 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: `1 session`, `1,200 sessions`. The plural is `many`, else `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
