"""All detectors. Each is a function of a poll that finds sessions which look leaked now."""

from collections.abc import Callable, Iterable

from pgwatch_sessions.core.judging.detection import Suspicion, held_connections, held_transactions
from pgwatch_sessions.core.judging.growth import growing_origins
from pgwatch_sessions.core.judging.kept import kept_transactions
from pgwatch_sessions.core.judging.poll_context import PollContext

#: To add a detector, add a line.
DETECTORS: tuple[Callable[[PollContext], Iterable[Suspicion]], ...] = (
    held_transactions,
    kept_transactions,
    held_connections,
    growing_origins,
)


def detect(context: PollContext) -> tuple[Suspicion, ...]:
    """Run every detector."""
    return tuple(suspicion for detector in DETECTORS for suspicion in detector(context))
