"""How long sessions may be held at each place: by the configuration, by what is normal there, and by what recurs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

from pgwatch_sessions.core.findings import Recurrence
from pgwatch_sessions.core.history import Cohort, History, Kill, Track
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.judging.recurrence import ended_lately, recurrence_of
from pgwatch_sessions.core.model import Client

#: A hold is normal up to this many times the longest one that ended at its site.
NORMAL_FACTOR = 2.0
#: What was learned raises the limit to this many hold limits at most.
_MAX_NORMAL = 3.0
#: If the server keeps terminating holds after T seconds, the limit is this part of T, so that they are seen before.
_KILL_SHARE = 0.5
#: So many kills at a site are a time-out.
MIN_KILLS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceLimits:
    """For how many seconds the holds at one place may last."""

    #: How long is normal: the unit for whether holds began together.
    normal: float
    #: Longer holds are reported.
    reported: float
    #: Longer holds may be leaked.
    longest: float
    #: A session that blocks others is reported after this time.
    blocking: float
    #: Whether the configuration sets them. It is final.
    is_configured: bool = False

    def of(self, track: Track, blockers: Collection[int]) -> float:
        """Return after how many seconds a hold is reported. `blockers` are the pids that block others."""
        return self.blocking if track.session.id.pid in blockers else self.reported


class HoldLimits:
    """The limits of all places at one poll. Each place is worked out once, because many sessions are held at one."""

    def __init__(self, history: History, policy: Policy) -> None:
        self._history = history
        self._policy = policy
        self._limits: dict[tuple[Client, tuple[str, ...]], PlaceLimits] = {}
        self._recurrences: dict[Cohort, Recurrence | None] = {}
        may_be_shorter = policy.hold_limits or any(habits.kills for habits in history.habits.values())
        #: No place has a shorter limit.
        self.shortest = 0.0 if may_be_shorter else policy.hold_limit

    def at(self, track: Track) -> PlaceLimits:
        """Return the limits of the place where a session is held."""
        place = track.session.client, track.sites
        limits = self._limits.get(place)
        if limits is None:
            limits = self._limits[place] = self._worked_out(track.cohort, track.sites)
        return limits

    def recurrence(self, cohort: Cohort) -> Recurrence | None:
        """Return how long holds recur at a site now; None if they do not."""
        if cohort not in self._recurrences:
            self._recurrences[cohort] = recurrence_of(cohort, self._history, self._policy)
        return self._recurrences[cohort]

    def recent_kills(self, cohort: Cohort) -> Sequence[Kill]:
        """Return the holds that the server terminated within the last window."""
        if self._history.last_poll_at is None:
            return ()
        return self._history.kills(cohort, since=self._history.last_poll_at - self._policy.growth_window)

    def _worked_out(self, cohort: Cohort, sites: Sequence[str]) -> PlaceLimits:
        """Return the limits of a place. Where a hold was reported lately, all that follow are."""
        history, policy = self._history, self._policy
        configured = policy.configured_limit(cohort.client, sites)
        if configured is not None:
            return PlaceLimits(
                normal=configured, reported=configured, longest=configured, blocking=configured, is_configured=True
            )
        recurrence = self.recurrence(cohort)
        learned = min(NORMAL_FACTOR * history.longest_hold(cohort), _MAX_NORMAL * policy.hold_limit)
        normal = policy.hold_limit if recurrence else max(policy.hold_limit, learned)
        kills = self.recent_kills(cohort)
        if len(kills) >= MIN_KILLS:
            normal = min(normal, _KILL_SHARE * median(kill.seconds for kill in kills))
        return PlaceLimits(
            normal=normal,
            reported=min(normal, policy.hold_limit) if ended_lately(cohort, history, policy) else normal,
            longest=normal if recurrence is None else max(normal, NORMAL_FACTOR * recurrence.longest),
            blocking=policy.hold_limit,
        )
