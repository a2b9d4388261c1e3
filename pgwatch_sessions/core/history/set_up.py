"""Recognises sessions that were set up and not used since.

A pool opens its minimum and sends each session a set-up of the application's own. The sessions that are not needed stay
like that for hours. The set-up is no use of them, so nobody took them out of the pool.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from pgwatch_sessions.core.history.tracks import Track
from pgwatch_sessions.core.model import Client, Session, SessionId, SessionState
from pgwatch_sessions.core.statements import StatementKind

#: The first moments of a session last so many seconds, and this part of the shortest rest that counts at most.
_FIRST_MOMENTS = 5.0
_PART = 1 / 6
#: A text is a set-up once so many sessions went on from it to another statement.
_MIN_WENT_ON = 3
#: It is none once a session sent it later.
_SENT_LATER = -1
#: Texts that are remembered of a client.
_MAX_TEXTS = 8
#: A pool opens at least so many sessions, each within the first moments of another, all within twice that time.
_MIN_OPENED = 3
_MAX_SPAN = 2.0


class _Opening(NamedTuple):
    """When a pool opened several sessions at once."""

    begin: float
    end: float


def first_moments(rest_limit: float) -> float:
    """Return how many seconds the first moments of a session last, from the shortest rest that counts."""
    return min(_FIRST_MOMENTS, _PART * rest_limit)


def learn_set_up(texts: Mapping[str, int], old: Session | None, new: Session, *, moments: float) -> Mapping[str, int]:
    """Return how many of a client's sessions went on from each text that was their first.

    `old` is the session before it moved; None if it has not moved since the last poll. `moments` are `first_moments`.
    """
    if new.statement.text in texts and _was_sent_later(new, moments):
        return {**texts, new.statement.text: _SENT_LATER}
    if old is None or not _is_new(old, moments) or new.statement.text == old.statement.text:
        return texts
    text = old.statement.text
    if text not in texts and len(texts) >= _MAX_TEXTS:
        return texts
    known = texts.get(text, 0)
    return texts if known == _SENT_LATER else {**texts, text: min(known + 1, _MIN_WENT_ON)}


def only_set_up(
    tracks: Iterable[Track], set_ups: Mapping[Client, Mapping[str, int]], *, moments: float
) -> frozenset[SessionId]:
    """Return the sessions that were set up and not used since.

    Their text was learned to be a set-up; or several were opened together and have sent it, and one of those that were
    opened with them went on to another statement. Where none did, a leak may have taken them all.
    `set_ups` has the texts that were learned, of the clients whose sessions matter. `moments` are `first_moments`.
    """
    sessions: dict[Client, list[Session]] = {}
    for track in tracks:
        if track.session.client in set_ups:
            sessions.setdefault(track.session.client, []).append(track.session)
    return frozenset(
        identity for client, own in sessions.items() for identity in _only_set_up(own, set_ups[client], moments)
    )


def _only_set_up(own: Sequence[Session], texts: Mapping[str, int], moments: float) -> Iterator[SessionId]:
    waiting: dict[str, list[Session]] = {}
    for session in own:
        if _is_new(session, moments):
            waiting.setdefault(session.statement.text, []).append(session)
    for text, sessions in waiting.items():
        if texts.get(text, 0) >= _MIN_WENT_ON:
            yield from (session.id for session in sessions)
        elif text not in texts or texts[text] != _SENT_LATER:
            yield from _opened_together(text, sessions, own, moments)


def _opened_together(text: str, waiting: Sequence[Session], own: Sequence[Session], moments: float) -> list[SessionId]:
    """Return those of the waiting sessions that a pool opened at once, unless their text proves to be no set-up."""
    openings = _openings([_born(session) for session in waiting], moments)
    went_on = any(
        opening.begin - moments <= _born(session) <= opening.end + moments
        for opening in openings
        for session in own
        if session.statement.text != text
    )
    if not went_on or any(session.statement.text == text and _was_sent_later(session, moments) for session in own):
        return []
    return [session.id for session in waiting if any(begin <= _born(session) <= end for begin, end in openings)]


def _openings(births: Sequence[float], moments: float) -> list[_Opening]:
    """Return when sessions were opened at once. A leak opens one after the other, for longer than that."""
    ordered = sorted(births)
    runs = [ordered[:1]]
    for before, born in pairwise(ordered):
        if born - before > moments:
            runs.append([])
        runs[-1].append(born)
    return [
        _Opening(run[0], run[-1]) for run in runs if len(run) >= _MIN_OPENED and run[-1] - run[0] <= _MAX_SPAN * moments
    ]


def _is_new(session: Session, moments: float) -> bool:
    """Return whether an idle session has sent an application's statement in its first moments, and nothing since."""
    return (
        session.state is SessionState.IDLE
        and session.statement.kind is StatementKind.APPLICATION
        and session.id.backend_start is not None
        and session.state_change is not None
        and session.state_change - session.id.backend_start <= moments
    )


def _was_sent_later(session: Session, moments: float) -> bool:
    """Return whether a session sent its last statement after its first moments."""
    sent = session.query_start
    return sent is not None and session.id.backend_start is not None and sent - session.id.backend_start > moments


def _born(session: Session) -> float:
    return session.id.backend_start or 0.0
