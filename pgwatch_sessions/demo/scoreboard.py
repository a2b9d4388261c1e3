"""What each act came to, measured, and the table that sets the acts side by side."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.clients import empty_summary
from pgwatch_sessions.core.summaries.poll import PollSummary
from pgwatch_sessions.demo.traffic import Outcome

_LABEL_WIDTH = 46
_COLUMN_WIDTH = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One act: how it stood at its end, and what happened in it."""

    #: As the daemon saw them at its last poll.
    sessions: int
    idle_in_transaction: int
    leaked: int
    #: As the service's pool counts: connections that are out; time-outs since the process began; seconds.
    checked_out: int
    timeouts: int
    wait_p95: float
    #: As who sent the requests counted them.
    outcomes: Mapping[Outcome, int]


def measured(
    client: Client, state: ServerState, view: PollSummary, pool: Mapping[str, Any], outcomes: Counter[Outcome]
) -> Score:
    """Put together what the daemon saw, what the service's pool says, and what came of the act's requests."""
    summary = next((each for each in view.clients if each.client == client), empty_summary(client))
    return Score(
        sessions=summary.sessions,
        idle_in_transaction=sum(summary.states[each] for each in IDLE_IN_TRANSACTION_STATES),
        leaked=sum(len(finding.sessions) for finding in state.findings if finding.key.client == client),
        checked_out=pool["checked_out"],
        timeouts=pool["timeouts"],
        wait_p95=pool["wait_p95"],
        outcomes=outcomes,
    )


_ROWS: tuple[tuple[str, Callable[[Score], str]], ...] = (
    ("leaked sessions, found by the daemon", lambda score: f"{score.leaked}"),
    ("sessions on the server", lambda score: f"{score.sessions}"),
    ("  of them idle in transaction", lambda score: f"{score.idle_in_transaction}"),
    ("connections in use, out of the pool", lambda score: f"{score.checked_out}"),
    ("pool time-outs", lambda score: f"{score.timeouts}"),
    ("p95 wait for a connection", lambda score: f"{1000 * score.wait_p95:.1f} ms"),
    ("requests answered", lambda score: f"{score.outcomes[Outcome.ANSWERED]}"),
    ("  refused for want of a connection (503)", lambda score: f"{score.outcomes[Outcome.REFUSED]}"),
    ("  failed on the broken order (500)", lambda score: f"{score.outcomes[Outcome.FAILED]}"),
)


def table(acts: Sequence[tuple[str, Score]]) -> str:
    """Return the acts as columns."""
    head = " " * _LABEL_WIDTH + "".join(f"{name:>{_COLUMN_WIDTH}}" for name, _ in acts)
    rows = (
        f"{label:<{_LABEL_WIDTH}}" + "".join(f"{value(score):>{_COLUMN_WIDTH}}" for _, score in acts)
        for label, value in _ROWS
    )
    return "\n".join((head, "-" * len(head), *rows))
