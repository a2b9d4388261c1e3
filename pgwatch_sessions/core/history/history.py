"""All that is remembered of one server. Nothing here judges."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pgwatch_sessions.core.history.habits import ClientHabits, Kill, LongHold, learn
from pgwatch_sessions.core.history.set_up import first_moments, only_set_up
from pgwatch_sessions.core.history.sizes import OriginSizes, follow_sizes
from pgwatch_sessions.core.history.tracks import Cohort, EndedHold, Origin, Track, ended_holds, follow_sessions
from pgwatch_sessions.core.model import (
    IDLE_IN_TRANSACTION_STATES,
    NONE,
    Client,
    Session,
    SessionId,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.statements import StatementKind

#: What sessions did in a longer pause between two polls is not known, even of those that were opened in it: the daemon
#: was not running, or the server refused it.
_LONG_PAUSE = 300.0
#: The sizes of origins are kept for spans of this part of the window.
_SPAN = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is known after the last successful poll. Failed polls do not change it."""

    #: The server's time of the first and the last successful poll.
    first_poll_at: float | None = None
    last_poll_at: float | None = None
    server_started_at: float | None = None
    #: Sessions that the server has terminated since its statistics were reset, by database.
    terminated: Mapping[str, int] = field(default_factory=dict)
    tracks: Mapping[SessionId, Track] = field(default_factory=dict)
    habits: Mapping[Client, ClientHabits] = field(default_factory=dict)
    #: How many sessions each origin had, in spans of a quarter of the window.
    sizes: Mapping[Origin, OriginSizes] = field(default_factory=dict)
    #: Sessions that were set up and not used since, of clients that return theirs to a pool.
    only_set_up: frozenset[SessionId] = frozenset()

    def returns_to_pool(self, client: Client) -> bool:
        """Return whether the client is known to return its sessions to a pool."""
        habits = self.habits.get(client)
        return habits is not None and habits.returns_to_pool

    def rest_count(self, client: Client) -> int:
        """Return how often the client's sessions were seen to rest and to be used again."""
        habits = self.habits.get(client)
        return habits.rests if habits else 0

    def longest_hold(self, cohort: Cohort) -> float:
        """Return the longest recent hold of the cohort that ended, in seconds; 0 if none is known."""
        habits = self.habits.get(cohort.client)
        longest = habits.longest_holds.get(cohort.site) if habits else None
        if longest is None or self.last_poll_at is None:
            return 0.0
        return longest.at(self.last_poll_at).seconds

    def long_holds(self, cohort: Cohort, *, since: float) -> Sequence[LongHold]:
        """Return the long holds of the cohort that ended by themselves after `since`."""
        habits = self.habits.get(cohort.client)
        return [each for each in habits.long_holds.get(cohort.site, ()) if each.ended_at > since] if habits else ()

    def longest_rest(self, client: Client, *, since: float) -> float:
        """Return the longest rest, in seconds, that ended after `since`; 0 if none is known."""
        habits = self.habits.get(client)
        return (
            max((rest.seconds for rest in habits.long_rests if rest.ended_at >= since), default=0.0) if habits else 0.0
        )

    def kills(self, cohort: Cohort, *, since: float) -> Sequence[Kill]:
        """Return the kills of the cohort after `since`."""
        habits = self.habits.get(cohort.client)
        return [kill for kill in habits.kills.get(cohort.site, ()) if kill.at >= since] if habits else ()

    def is_held(self, session: Session) -> bool:
        """Return whether a session is neither working nor returned to its pool."""
        if session.state in IDLE_IN_TRANSACTION_STATES:
            return True
        return (
            session.state is SessionState.IDLE
            and session.statement.kind is StatementKind.APPLICATION
            and self.returns_to_pool(session.client)
            and session.id not in self.only_set_up
        )

    def recognise(self, snapshot: Snapshot) -> Snapshot:
        """Give sessions what the server does not show of them now, but did before.

        A hidden session has no start and no address: without them, it would be another session than before. A session
        without application_name keeps the application that the tags of its earlier statements named: a pool's reset
        carries no tags, and without this a session would change its client with each statement.
        """
        sessions = self._with_known_starts(snapshot) if any(map(_is_without_start, snapshot.sessions)) else None
        if sessions is None and all(session.client.application != NONE for session in snapshot.sessions):
            return snapshot
        return replace(snapshot, sessions=tuple(map(self._with_known_application, sessions or snapshot.sessions)))

    def _with_known_starts(self, snapshot: Snapshot) -> Sequence[Session]:
        """Give hidden sessions the identity of the session that had their pid, database and user at the last poll."""
        tracks = () if self._is_restarted(snapshot) else self.tracks.values()
        known = {track.session.id.pid: track.session for track in tracks if not _is_without_start(track.session)}
        return [
            replace(session, id=before.id, client_addr=before.client_addr, client_port=before.client_port)
            if _is_without_start(session)
            and (before := known.get(session.id.pid)) is not None
            and before.client[:2] == session.client[:2]
            else session
            for session in snapshot.sessions
        ]

    def _with_known_application(self, session: Session) -> Session:
        known = self.tracks.get(session.id)
        if known is None or session.client.application != NONE or known.session.client.application == NONE:
            return session
        return replace(session, client=known.session.client)

    def follow(
        self, snapshot: Snapshot, *, rest_limit: float, window: float, leaked: Collection[SessionId] = frozenset()
    ) -> "tuple[History, tuple[EndedHold, ...]]":
        """Return the history after a poll, and the holds that ended since the last one.

        Rests shorter than `rest_limit` seconds teach nothing. Nor do `leaked` sessions that are gone: somebody
        terminated them, or restarted their application.
        """
        before: Mapping[SessionId, Track] = {} if self._is_restarted(snapshot) else self.tracks
        births_missed = self.last_poll_at is None or snapshot.taken_at - self.last_poll_at > _LONG_PAUSE
        after = follow_sessions(before, snapshot.sessions, births_missed=births_missed, last_poll_at=self.last_poll_at)
        terminated = {counters.database: counters.fatal + counters.killed for counters in snapshot.databases}
        ended: tuple[EndedHold, ...] = ()
        if self.last_poll_at is not None:
            ended = tuple(
                ended_holds(
                    before,
                    after,
                    last_poll_at=self.last_poll_at,
                    is_held=self.is_held,
                    killing_databases={
                        database
                        for database, count in terminated.items()
                        if count > self.terminated.get(database, count)
                    },
                    leaked=leaked,
                    rest_limit=rest_limit,
                )
            )
        habits = learn(self.habits, before, after, ended, at=snapshot.taken_at, rest_limit=rest_limit)
        history = History(
            # If the server's clock is set back, the first poll must not lie in the future.
            first_poll_at=snapshot.taken_at
            if self.first_poll_at is None
            else min(self.first_poll_at, snapshot.taken_at),
            last_poll_at=snapshot.taken_at,
            server_started_at=snapshot.server.started_at,
            terminated=terminated,
            tracks=after,
            habits=habits,
            only_set_up=only_set_up(
                after.values(),
                {client: each.set_ups for client, each in habits.items() if each.returns_to_pool},
                moments=first_moments(rest_limit),
            ),
            sizes=follow_sizes(self.sizes, before, after, at=snapshot.taken_at, length=_SPAN * window),
        )
        return history, ended

    def _is_restarted(self, snapshot: Snapshot) -> bool:
        """Return whether the server was restarted since the last poll, so that every session is new."""
        before, now = self.server_started_at, snapshot.server.started_at
        return before is not None and now is not None and before != now


def _is_without_start(session: Session) -> bool:
    return session.state is None and session.id.backend_start is None
