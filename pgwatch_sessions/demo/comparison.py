"""The table that compares the three acts of the demo."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.demo.traffic import Outcome
from pgwatch_sessions.terminal import table


def measure(
    client: Client, state: ServerState, pool: Mapping[str, Any], outcomes: Counter[Outcome]
) -> Mapping[str, str]:
    """Return the figures of an act by label, from the daemon, the service's pool and the outcomes of requests."""
    sessions = (
        [session for session in state.summary.snapshot.sessions if session.client == client] if state.summary else []
    )
    figures = {
        "leaked sessions, as found by the daemon": sum(len(finding.sessions) for finding in state.findings),
        "sessions on the server": len(sessions),
        "  idle in transaction": sum(session.state in IDLE_IN_TRANSACTION_STATES for session in sessions),
        "connections checked out of the pool": pool["checked_out"],
        "pool timeouts": pool["timeouts"],
        "wait for a connection, 95th percentile, ms": f"{1000 * pool['wait_p95']:.1f}",
        "requests answered (200)": outcomes[Outcome.ANSWERED],
        "  refused, no free connection (503)": outcomes[Outcome.REFUSED],
        "  failed on the invalid order (500)": outcomes[Outcome.FAILED],
    }
    return {label: str(figure) for label, figure in figures.items()}


def comparison(acts: Mapping[str, Mapping[str, str]]) -> str:
    """Return a table with a column for each act."""
    figures = list(acts.values())
    return "\n".join(table(("", *acts), [(label, *(each[label] for each in figures)) for label in figures[0]]))
