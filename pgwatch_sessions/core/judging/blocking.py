"""Who waits for whom, and what held sessions cost others."""

from collections.abc import Collection, Iterable, Mapping

from pgwatch_sessions.core.findings import Harm
from pgwatch_sessions.core.model import Session


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
    pids = {session.id.pid for session in sessions}
    xmins = [session.backend_xmin_age for session in sessions if session.backend_xmin_age is not None]
    xids = [session.backend_xid_age for session in sessions if session.backend_xid_age is not None]
    return Harm(
        slots=len(sessions),
        blocked=len(blocking.waiting_for(pids)) if blocking else 0,
        xmin_age_max=max(xmins, default=None),
        xid_age_max=max(xids, default=None),
    )
