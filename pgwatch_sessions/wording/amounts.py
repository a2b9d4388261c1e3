"""Durations, times and counts, as text for people."""

import math
from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


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


def until_full(seconds: float) -> str:
    """Return when a limit is reached: `now`, `in 14 min`, or `not at this rate`."""
    if math.isinf(seconds):
        return "not at this rate"
    return f"in {duration(seconds)}" if seconds else "now"


def moment(seconds: float) -> str:
    """Return a time given in seconds since the epoch: `2026-11-21 03:04:05 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: `1 session`, `1,200 sessions`. The plural is `many`, else `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
