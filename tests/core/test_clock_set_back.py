"""The server's clock is set back by an hour: every time that it told before lies in the future for a while."""

import re
from collections.abc import Iterator
from io import BufferedReader, BytesIO
from typing import Any

from prometheus_client import generate_latest

from pgwatch_sessions.commands.replay.polls import ReplayedPoll, replay
from pgwatch_sessions.core.findings import FindingState
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Session, SessionState
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.metrics.collector import registry_of
from pgwatch_sessions.recording import encode_poll, read_polls
from pgwatch_sessions.web.json_api import DOCUMENTS, Selection
from pgwatch_sessions.wording.sentences import diagnosis_text, finding_sentence
from tests.support.polled_server import SPREAD_OUT, held
from tests.support.values import NOW, session, snapshot

HOUR = 3600.0
ACTIVE = SessionState.ACTIVE
#: A leak, a long query, a session at rest, and one that waits for the leaked ones.
SESSIONS = [
    *SPREAD_OUT,
    session(20, ACTIVE, since=NOW, query_start=NOW, xact_start=NOW, query="SELECT * FROM reports"),
    session(21, since=NOW, query="ROLLBACK"),
    session(22, ACTIVE, since=NOW + 150, query_start=NOW + 150, wait_event_type="Lock", blocked_by=(1, 2)),
]


def replayed(*polls: tuple[float, list[Session]]) -> Iterator[ReplayedPoll]:
    """Yield the polls of a recording, each so many seconds after NOW, judged."""
    lines = (encode_poll(snapshot(*sessions, at=NOW + at), server="db", at=NOW + at) for at, sessions in polls)
    for each in replay(read_polls(BufferedReader(BytesIO(b"".join(lines)))), Policy()):
        assert isinstance(each, ReplayedPoll)
        yield each


def numbers_in(document: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Yield each number of a document and its key."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from numbers_in(value, name)
    elif isinstance(document, list):
        for value in document:
            yield from numbers_in(value, key)
    elif isinstance(document, int | float) and not isinstance(document, bool):
        yield key, document


def negative_ages(state: ServerState) -> list[tuple[str, float]]:
    """Return every negative number that is shown of a server; the port of a Unix socket is -1 and no age."""
    texts = [finding_sentence(finding, at=state.last_poll_at or 0.0) for finding in state.findings]
    texts += map(diagnosis_text, state.diagnoses.values())
    shown = [("text", float(number)) for text in texts for number in re.findall(r"(?<!\S)-[0-9.]+", text)]
    for document in DOCUMENTS.values():
        shown += numbers_in(document({"db": state}, Selection()))
    for line in generate_latest(registry_of(lambda: [state])).decode().splitlines():
        if not line.startswith("#"):
            shown.append((line, float(line.rsplit(" ", 1)[1])))
    return [(name, number) for name, number in shown if number < 0]


def test_no_age_is_negative() -> None:
    """From the poll of the jump on, until the clock shows the old time again: in metrics, documents and sentences."""
    before = [(float(seconds), SESSIONS) for seconds in range(0, 200, 10)]
    after = [(seconds - HOUR, SESSIONS) for seconds in (200.0, 210.0, 900.0)]
    states = [poll.state for poll in replayed(*before, *after, (210.0, SESSIONS))]
    assert [negative_ages(state) for state in states] == [[]] * len(states)


def test_a_leak_goes_on() -> None:
    """It stays one finding, its age counts from the jump on, and it stays critical while it blocks others."""
    before = [(float(seconds), SESSIONS) for seconds in range(0, 200, 10)]
    after = [(seconds - HOUR, SESSIONS) for seconds in (200.0, 210.0, 500.0)]
    *_, was, jumped, _, last = (poll.state for poll in replayed(*before, *after))
    (finding,), (then,) = was.findings, last.findings
    assert then.id == finding.id
    assert then.state is FindingState.OPEN
    assert then.severity is finding.severity
    assert jumped.findings[0].since == NOW + 200 - HOUR
    assert then.since == NOW + 200 - HOUR


def test_a_hold_that_ends_after_the_jump_has_no_negative_length() -> None:
    """What is learned of holds that began in the future is that they lasted no time."""
    gone = [session(20, ACTIVE, since=NOW + 190 - HOUR, query_start=NOW + 190 - HOUR)]
    jumped = [(200.0 - HOUR, SESSIONS), (210.0 - HOUR, [held(0, 0), *gone])]
    *_, last = (poll.state for poll in replayed(*((float(s), SESSIONS) for s in range(0, 200, 10)), *jumped))
    assert all(each.seconds >= 0 for tracked in last.memory.tracked for each in tracked.ended)
    assert all(histogram.sum >= 0 for histogram in last.hold_durations.values())
    assert negative_ages(last) == []
