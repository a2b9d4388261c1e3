"""What is remembered from poll to poll: which sessions moved (tracks) and what is normal for a client (habits)."""

from pgwatch_sessions.core.history.habits import ClientHabits, Kill, LongHold
from pgwatch_sessions.core.history.history import History
from pgwatch_sessions.core.history.sizes import OriginSizes, Span
from pgwatch_sessions.core.history.tracks import Cohort, EndedHold, HoldEnd, LastSeen, OpenTransaction, Origin, Track

__all__ = [
    "ClientHabits",
    "Cohort",
    "EndedHold",
    "History",
    "HoldEnd",
    "Kill",
    "LastSeen",
    "LongHold",
    "OpenTransaction",
    "Origin",
    "OriginSizes",
    "Span",
    "Track",
]
