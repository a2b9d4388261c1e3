"""Recognises sessions that were set up and not used since.

A pool opens its minimum and sends each session a set-up of the application's own. The sessions that are not needed stay
like that for hours. The set-up is no use of them, and so nothing was left out of a pool.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from pgwatch_sessions.core.history.tracks import Track
from pgwatch_sessions.core.model import Client, Session, SessionId, SessionState
from pgwatch_sessions.core.statements import StatementKind

#: The first moments of a session, in seconds.
FIRST_MOMENTS = 5.0
#: A text is a set-up once so many sessions went on from it to another statement.
_MIN_SET_UP = 3
#: It is none once a session sent it later.
_SENT_LATER = -1
#: Texts that are remembered of a client.
_MAX_TEXTS = 8
#: A pool opens so many sessions at least, each within so many seconds of another, all within so many seconds.
_MIN_OPENED = 3
_GAP = 5.0
_MAX_SPAN = 10.0


def learn_set_up(texts: Mapping[str, int], old: Session | None, new: Session) -> Mapping[str, int]:
    """Return how many of a client's sessions went on from each text that was their first.

    `old` is the session before it moved; None if it has not moved since the last poll.
    """
    if new.statement.kind is StatementKind.APPLICATION and new.statement.text in texts and _was_sent_later(new):
        return {**texts, new.statement.text: _SENT_LATER}
    if old is None or not is_new(old) or new.statement.text == old.statement.text:
        return texts
    text = old.statement.text
    if text not in texts and len(texts) >= _MAX_TEXTS:
        return texts
    known = texts.get(text, 0)
    return texts if known == _SENT_LATER else {**texts, text: min(known + 1, _MIN_SET_UP)}


def only_set_up(tracks: Iterable[Track], set_ups: Mapping[Client, Mapping[str, int]]) -> frozenset[SessionId]:
    """Return the sessions that were set up and not used since.

    Their text was learned to be a set-up, or several were opened together and have sent it. No session sent it later.
    `set_ups` has the texts that were learned, of the clients whose sessions matter.
    """
    waiting: dict[tuple[Client, str], list[Session]] = {}
    later: set[tuple[Client, str]] = set()
    for track in tracks:
        session = track.session
        if session.statement.kind is StatementKind.APPLICATION and session.client in set_ups:
            if is_new(session):
                waiting.setdefault((session.client, session.statement.text), []).append(session)
            elif _was_sent_later(session):
                later.add((session.client, session.statement.text))
    found: list[SessionId] = []
    for (client, text), sessions in waiting.items():
        known = set_ups[client].get(text, 0)
        if known >= _MIN_SET_UP:
            found += [session.id for session in sessions]
        elif known != _SENT_LATER and (client, text) not in later:
            found += _opened_together(sessions)
    return frozenset(found)


def is_new(session: Session) -> bool:
    """Return whether an idle session has sent an application's statement in its first moments, and nothing since."""
    born, since = session.id.backend_start, session.state_change
    return (
        session.state is SessionState.IDLE
        and session.statement.kind is StatementKind.APPLICATION
        and born is not None
        and since is not None
        and since - born <= FIRST_MOMENTS
    )


def _was_sent_later(session: Session) -> bool:
    """Return whether a session sent its last statement after its first moments."""
    born, sent = session.id.backend_start, session.query_start
    return born is not None and sent is not None and sent - born > FIRST_MOMENTS


def _opened_together(sessions: Sequence[Session]) -> list[SessionId]:
    """Return the sessions that a pool opened at once. A leak opens one after the other, for longer than that."""
    ordered = sorted(session.id.backend_start or 0.0 for session in sessions)
    runs: list[list[float]] = [ordered[:1]]
    for before, born in pairwise(ordered):
        if born - before > _GAP:
            runs.append([])
        runs[-1].append(born)
    spans = [(run[0], run[-1]) for run in runs if len(run) >= _MIN_OPENED and run[-1] - run[0] <= _MAX_SPAN]
    return [
        session.id
        for session in sessions
        if any(begin <= (session.id.backend_start or 0.0) <= end for begin, end in spans)
    ]
