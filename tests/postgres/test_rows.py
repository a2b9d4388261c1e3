from collections import defaultdict
from collections.abc import Mapping

import pytest

from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.postgres.rows import sessions_of


def row(backend_start: float | None) -> Mapping[str, object]:
    """Return the row of a session with pid 1, of which no more is known."""
    return defaultdict(lambda: None, pid=1, backend_start=backend_start)


@pytest.mark.parametrize("starts", [(100.0, 200.0), (200.0, 100.0), (None, 200.0)])
def test_of_two_sessions_with_one_pid_the_later_counts(starts: tuple[float | None, float]) -> None:
    """A session ended during the read, and another one got its pid. The rows come in any order."""
    sessions = sessions_of(map(row, starts), {}, parse=parse_statement)
    assert [seen.session.id for seen in sessions.values()] == [(1, 200.0)]
