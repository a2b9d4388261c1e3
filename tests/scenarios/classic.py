"""Common alert rules from articles and exporters, on the same snapshots, for comparison."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, SessionState, Snapshot


def _active(snapshot: Snapshot) -> int:
    return sum(session.state is SessionState.ACTIVE for session in snapshot.sessions)


def _oldest(snapshot: Snapshot, *states: SessionState) -> float:
    return max(
        (
            snapshot.taken_at - session.state_change
            for session in snapshot.sessions
            if session.state in states and session.state_change is not None
        ),
        default=0.0,
    )


def _full(snapshot: Snapshot) -> float:
    return (len(snapshot.sessions) + 1) / (snapshot.server.ordinary_slots or 1)


_IN_TRANSACTION = tuple(IDLE_IN_TRANSACTION_STATES)

RULES: Mapping[str, Callable[[Snapshot], bool]] = MappingProxyType(
    {
        "active > 80": lambda s: _active(s) > 80,
        "any idle in transaction > 30 s": lambda s: _oldest(s, *_IN_TRANSACTION) > 30,
        "any idle in transaction > 5 min": lambda s: _oldest(s, *_IN_TRANSACTION) > 300,
        "any idle > 60 s": lambda s: _oldest(s, SessionState.IDLE) > 60,
        "connections > 80 %": lambda s: _full(s) > 0.8,
        "idle in transaction > 10": lambda s: sum(x.state in _IN_TRANSACTION for x in s.sessions) > 10,
    }
)


def classic_rules(snapshot: Snapshot) -> frozenset[str]:
    """Return the names of the rules that fire."""
    return frozenset(name for name, fires in RULES.items() if fires(snapshot))
