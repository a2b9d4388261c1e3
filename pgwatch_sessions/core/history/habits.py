"""Learns what is normal for each client: whether it returns its sessions to a pool, and how long its holds last.

Everything is bounded: the number of clients, the sites of each, and what is kept of each site.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from pgwatch_sessions.core.history.set_up import first_moments, learn_set_up
from pgwatch_sessions.core.history.tracks import EndedHold, HoldEnd, Track
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, Session, SessionId, SessionState
from pgwatch_sessions.core.statements import StatementKind

#: Clients whose habits are remembered, and sites of each of them.
_MAX_CLIENTS = 5_000
_MAX_SITES = 64
#: Rests that a client's habit is judged by. Above this number both counts are halved, so that a habit can change.
_MAX_RESTS = 1_000
_RESTS = frozenset({StatementKind.RETURNED, StatementKind.APPLICATION})
#: A client that uses a pool returns its sessions nearly always. The share is larger where only COMMIT shows it: clients
#: without a pool that resets end their transactions too.
_RETURN_SHARE = 0.7
_COMMIT_SHARE = 0.95
_MIN_RETURNS = 3
_COMMITS = ("COMMIT", "END")
_MAX_LONG_RESTS = 8
_MAX_KILLS = 8
_MAX_LONG_HOLDS = 64
#: A longest hold is remembered for at least this long and at most twice as long. A weekly batch is still remembered.
#: A connection that the garbage collector returned late hides a leak for 16 days at most.
_REMEMBERED_SECONDS = 8 * 86_400.0

_Value = TypeVar("_Value")


class LongestHold(NamedTuple):
    """The longest hold of a site that ended, in two spans of eight days; the older span is forgotten as a whole."""

    #: When the present span began.
    since: float
    #: Seconds, in the present span and in the one before.
    present: float
    former: float = 0.0

    @property
    def seconds(self) -> float:
        """The longest hold of both spans."""
        return max(self.present, self.former)

    def at(self, now: float) -> "LongestHold":
        """Return what is still remembered at this time."""
        spans = int((now - self.since) / _REMEMBERED_SECONDS)
        if spans < 1:
            return self
        return LongestHold(now, 0.0, self.present if spans == 1 else 0.0)


class Kill(NamedTuple):
    """A hold that the server or an operator ended by terminating its session."""

    at: float
    #: How long the hold had lasted.
    seconds: float


class LongHold(NamedTuple):
    """Long holds that ended and whose transactions began together; of a batch, they count once."""

    #: When the first of the transactions began. Holds of one transaction have the same.
    began: float
    ended_at: float
    holds: int
    #: Of all of them together, and of the longest.
    seconds: float
    longest: float


class LongRest(NamedTuple):
    """A long time in which an idle session was not used, until it was used again."""

    ended_at: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHabits:
    """What was learned of one client."""

    #: When it last had a session.
    seen_at: float
    #: Of the sessions that were used again: how often they had been returned to the pool, and how often they had been
    #: left idle after an application statement.
    returned: int = 0
    left: int = 0
    #: Of those returned: how often the last statement was COMMIT, which a pool's reset replaces.
    committed: int = 0
    #: The longest hold that ended, by site.
    longest_holds: Mapping[str, LongestHold] = field(default_factory=dict)
    #: The latest long holds in a transaction that ended by themselves, by site.
    long_holds: Mapping[str, tuple[LongHold, ...]] = field(default_factory=dict)
    #: The latest kills, by site.
    kills: Mapping[str, tuple[Kill, ...]] = field(default_factory=dict)
    #: The latest long rests; only those that no later one exceeds.
    long_rests: tuple[LongRest, ...] = ()
    #: Texts that may be its set-up of a session; see `set_up`.
    set_ups: Mapping[str, int] = field(default_factory=dict)

    @property
    def rests(self) -> int:
        """How often a session of the client was seen to rest and to be used again."""
        return self.returned + self.left

    @property
    def returns_to_pool(self) -> bool:
        """Whether this client normally returns its sessions to a pool that resets them."""
        if self.returned < _MIN_RETURNS:
            return False
        reset = self.returned - self.committed
        return reset >= _RETURN_SHARE * (self.left + reset) > 0 or self.returned >= _COMMIT_SHARE * self.rests


def learn(
    habits: Mapping[Client, ClientHabits],
    before: Mapping[SessionId, Track],
    after: Mapping[SessionId, Track],
    ended: Iterable[EndedHold],
    *,
    at: float,
    rest_limit: float,
) -> Mapping[Client, ClientHabits]:
    """Return the habits after a poll `at` this time.

    Rests shorter than `rest_limit` seconds teach nothing, and holds are long from there on.
    """
    learned = dict(habits)
    for client in {track.session.client for track in after.values()}:
        known = learned.get(client)
        learned[client] = replace(known, seen_at=at) if known else ClientHabits(seen_at=at)
    for identity, track in after.items():
        old, client = before.get(identity), track.session.client
        moved = old is not None and old.moves < track.moves
        if moved or learned[client].set_ups:
            set_ups = learn_set_up(
                learned[client].set_ups,
                old.session if old and moved else None,
                track.session,
                moments=first_moments(rest_limit),
            )
            if set_ups is not learned[client].set_ups:
                learned[client] = replace(learned[client], set_ups=set_ups)
        if old is not None and moved and old.session.state is SessionState.IDLE:
            learned[client] = _learn_rest(learned[client], old.session, track.session, at=at, rest_limit=rest_limit)
    for hold in ended:
        if hold.how is not HoldEnd.FREED:
            client = hold.session.client
            known = learned.get(client) or ClientHabits(seen_at=at)
            learned[client] = _learn_hold(known, hold, at, rest_limit=rest_limit)
    return _bounded(learned)


def _learn_rest(habits: ClientHabits, old: Session, new: Session, *, at: float, rest_limit: float) -> ClientHabits:
    """Learn from a session that was idle and is used again. One that is never used again teaches nothing."""
    seconds = (new.query_start or at) - (old.state_change or at)
    if seconds > rest_limit:
        longer = [rest for rest in habits.long_rests if rest.seconds > seconds]
        habits = replace(habits, long_rests=(*longer[-(_MAX_LONG_RESTS - 1) :], LongRest(at, seconds)))
    kind = old.statement.kind
    if kind not in _RESTS:
        return habits
    divisor = 2 if habits.rests >= _MAX_RESTS else 1
    return replace(
        habits,
        returned=habits.returned // divisor + (kind is StatementKind.RETURNED),
        left=habits.left // divisor + (kind is StatementKind.APPLICATION),
        committed=habits.committed // divisor + old.statement.text.upper().startswith(_COMMITS),
    )


def _learn_hold(habits: ClientHabits, hold: EndedHold, at: float, *, rest_limit: float) -> ClientHabits:
    site = hold.session.statement.site
    if hold.how is HoldEnd.KILLED:
        kills = (*habits.kills.get(site, ()), Kill(at, hold.seconds))[-_MAX_KILLS:]
        return replace(habits, kills=_with_site(habits.kills, site, kills))
    if hold.how is not HoldEnd.LEAKED:
        longest = habits.longest_holds.get(site, LongestHold(at, 0.0)).at(at)
        longest = longest._replace(present=max(longest.present, hold.seconds))
        habits = replace(habits, longest_holds=_with_site(habits.longest_holds, site, longest))
    if hold.seconds <= rest_limit or hold.session.state not in IDLE_IN_TRANSACTION_STATES:
        return habits
    began = hold.session.xact_start or hold.session.state_change or at
    long_holds = _with_long_hold(
        habits.long_holds.get(site, ()), LongHold(began, at, 1, hold.seconds, hold.seconds), together=rest_limit
    )
    return replace(habits, long_holds=_with_site(habits.long_holds, site, long_holds))


def _with_long_hold(known: tuple[LongHold, ...], hold: LongHold, *, together: float) -> tuple[LongHold, ...]:
    """Return the long holds with one more. It joins the first that began within `together` seconds of it."""
    for place, other in enumerate(known):
        if abs(hold.began - other.began) <= together:
            joined = LongHold(
                other.began,
                hold.ended_at,
                other.holds + hold.holds,
                other.seconds + hold.seconds,
                max(other.longest, hold.longest),
            )
            return (*known[:place], joined, *known[place + 1 :])
    return (*known, hold)[-_MAX_LONG_HOLDS:]


def _with_site(sites: Mapping[str, _Value], site: str, value: _Value) -> Mapping[str, _Value]:
    """Return the mapping with this site's value as its latest, without the oldest if there are too many."""
    others = [(name, old) for name, old in sites.items() if name != site]
    return dict([*others[-(_MAX_SITES - 1) :], (site, value)])


def _bounded(habits: dict[Client, ClientHabits]) -> Mapping[Client, ClientHabits]:
    excess = len(habits) - _MAX_CLIENTS
    if excess > 0:
        # Many are removed at once, so that a stream of new names does not sort all of them at each poll.
        for client in sorted(habits, key=lambda client: habits[client].seen_at)[: excess + _MAX_CLIENTS // 10]:
            del habits[client]
    return habits
