"""All detectors. Each is a function of the history and the policy that finds sessions which look leaked now."""

from collections.abc import Callable, Iterable

from pgwatch_sessions.core.history import History
from pgwatch_sessions.core.judging.detection import Suspicion, held_connections, held_transactions
from pgwatch_sessions.core.judging.growth import growing_origins
from pgwatch_sessions.core.judging.kept import kept_transactions
from pgwatch_sessions.core.judging.policy import Policy

#: To add a detector, add a line.
DETECTORS: tuple[Callable[[History, Policy], Iterable[Suspicion]], ...] = (
    held_transactions,
    kept_transactions,
    held_connections,
    growing_origins,
)


def detect(history: History, policy: Policy) -> tuple[Suspicion, ...]:
    """Run every detector."""
    return tuple(suspicion for detector in DETECTORS for suspicion in detector(history, policy))
