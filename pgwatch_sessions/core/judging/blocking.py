"""Who waits for whom, and what held sessions cost others."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from pgwatch_sessions.core.findings import Harm
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, Session, SessionId, SessionState

#: A client stands still if all of its running sessions wait, and there are so many.
_MIN_STOPPED = 2


class Blocked(NamedTuple):
    """A time in which sessions waited for others; waiters may have given up meanwhile, and others came."""

    since: float
    #: When somebody was last seen to wait.
    last: float


class Blocking:
    """Which sessions wait for which others, at one poll."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        """Read `blocked_by` of every session."""
        self._waiters: dict[int, list[Session]] = {}
        self._blockers: dict[int, tuple[int, ...]] = {}
        for session in sessions:
            if session.blocked_by:
                self._blockers[session.id.pid] = session.blocked_by
                for pid in session.blocked_by:
                    self._waiters.setdefault(pid, []).append(session)

    def __bool__(self) -> bool:
        """Return whether any session waits."""
        return bool(self._blockers)

    def waiting_for(self, pids: Collection[int]) -> Mapping[int, Session]:
        """Return the sessions that wait for `pids`, directly or behind another waiter, by pid; `pids` are left out."""
        found: dict[int, Session] = {}
        ahead = list(pids)
        while ahead:
            for session in self._waiters.get(ahead.pop(), ()):
                if session.id.pid not in found and session.id.pid not in pids:
                    found[session.id.pid] = session
                    ahead.append(session.id.pid)
        return found

    def roots_of(self, pid: int) -> frozenset[int]:
        """Return the pids at the head of the queue that session `pid` waits in; empty in a deadlock."""
        roots, seen, ahead = set(), {pid}, list(self._blockers.get(pid, ()))
        while ahead:
            blocker = ahead.pop()
            if blocker in seen:
                continue
            seen.add(blocker)
            if blocker in self._blockers:
                ahead.extend(self._blockers[blocker])
            else:
                roots.add(blocker)
        return frozenset(roots)


NO_BLOCKING = Blocking(())


def harm_of(sessions: Collection[Session], blocking: Blocking) -> Harm:
    """Add up what these sessions cost others."""
    waiting = blocking.waiting_for({session.id.pid for session in sessions}) if blocking else {}
    xmins = [session.backend_xmin_age for session in sessions if session.backend_xmin_age is not None]
    xids = [session.backend_xid_age for session in sessions if session.backend_xid_age is not None]
    return Harm(
        slots=len(sessions),
        blocked=len(waiting),
        xmin_age_max=max(xmins, default=None),
        xid_age_max=max(xids, default=None),
    )


def follow_blocked(
    before: Mapping[SessionId, Blocked], sessions: Iterable[Session], blocking: Blocking, *, now: float, pause: float
) -> Mapping[SessionId, Blocked]:
    """Return since when others have waited for each session that is idle in transaction.

    A pause of up to `pause` seconds does not end it.
    """
    if not blocking and not before:
        return {}
    after = {}
    for session in sessions:
        if session.state in IDLE_IN_TRANSACTION_STATES:
            known = before.get(session.id)
            known = known if known is not None and 0 <= now - known.last <= pause else None
            waiting = blocking.waiting_for({session.id.pid}).values()
            if waiting:
                since = min([now, *(each.query_start for each in waiting if each.query_start is not None)])
                known = Blocked(since if known is None else min(since, known.since), now)
            if known is not None:
                after[session.id] = known
    return after


def stopped_client(held: Collection[Session], blocking: Blocking, sessions: Iterable[Session]) -> Client | None:
    """Return another client of which all running sessions wait for `held`; None if there is none.

    `sessions` are all of the server.
    """
    if not blocking or not held:
        return None
    waiting = Counter(each.client for each in blocking.waiting_for({session.id.pid for session in held}).values())
    own = {session.client for session in held}
    running = Counter(each.client for each in sessions if each.state is SessionState.ACTIVE)
    stopped = [
        client
        for client, number in waiting.items()
        if client not in own and number >= _MIN_STOPPED and number >= running[client]
    ]
    return max(stopped, key=lambda client: (waiting[client], client), default=None)
