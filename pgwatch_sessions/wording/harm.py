"""What held sessions cost others, as text."""

from pgwatch_sessions.core.findings import Harm
from pgwatch_sessions.wording.amounts import counted, duration
from pgwatch_sessions.wording.labels import client_name, limit_name

#: Every transaction holds back vacuum a little. Below this number of transactions it is not worth a word.
_MIN_XMIN_AGE = 10_000


def held_back(harm: Harm) -> str:
    """Return how far vacuum is held back, for example `25,000 transactions`; empty if hardly."""
    age = harm.xmin_age_max or 0
    return counted(age, "transaction") if age >= _MIN_XMIN_AGE else ""


def harm_parts(harm: Harm) -> list[str]:
    """Return what the sessions of a finding do to others: `blocks 2 other sessions`."""
    parts = []
    if harm.blocked:
        lasts = f" for {duration(harm.blocked_seconds)}" if harm.blocked_seconds >= 1 else ""
        parts.append(f"blocks {counted(harm.blocked, 'other session')}{lasts}")
    if harm.stopped is not None:
        parts.append(f"every running session of {client_name(harm.stopped)} waits")
    if harm.own_pool is not None:
        parts.append(f"its own pool of {harm.own_pool} is full")
    if harm.fills:
        slots = harm.fills.slots
        parts.append(f"{slots.used:,} of {counted(slots.capacity, 'connection')} of {limit_name(slots.limit)} in use")
    if held_back(harm):
        parts.append(f"holds back vacuum by {held_back(harm)}")
    return parts
