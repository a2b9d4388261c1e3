"""What can be wrong, as values: findings with their evidence, and diagnoses."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import Client, Session
from pgwatch_sessions.core.statements import CodeLine, Statement

#: Lines of code that are named of one finding.
MAX_CODE_LINES = 5


class LeakKind(StrEnum):
    """How leaked sessions appear on the server."""

    #: Idle in transaction, aborted or not, with no further statement.
    TRANSACTION_HELD = "transaction_held"
    #: In one transaction for long, although the session is in use: statement after statement, no COMMIT or ROLLBACK.
    TRANSACTION_KEPT = "transaction_kept"
    #: Idle after an application statement, although this client normally returns its connections to the pool.
    CONNECTION_HELD = "connection_held"
    #: One origin keeps opening sessions and never uses the earlier ones again.
    ORIGIN_GROWTH = "origin_growth"


class Severity(StrEnum):
    """How much a finding matters, in increasing order. Compare by `rank`."""

    #: Evidence only.
    NOTICE = "notice"
    #: Recurring at a site, long, or harmful.
    WARNING = "warning"
    #: Connections run out within the horizon, or other sessions are blocked.
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for the least severe."""
        return tuple(Severity).index(self)


class FindingState(StrEnum):
    """Whether a finding still has sessions."""

    OPEN = "open"
    #: Its sessions are still connected, but hidden from the monitoring role: nobody knows whether they are held.
    UNSEEN = "unseen"
    #: All its sessions have ended or are used again. It closes unless another session is held soon.
    RECOVERING = "recovering"


class Verdict(StrEnum):
    """What is wrong with a client or a server."""

    OK = "ok"
    LEAKING = "leaking"
    #: The pool or the server is too small: all sessions are busy and finish their work.
    SATURATED = "saturated"
    #: Most of its running statements wait for locks.
    BLOCKED = "blocked"
    #: Most of its sessions run long queries.
    SLOW = "slow"
    #: Not enough is visible to tell.
    UNKNOWN = "unknown"


class FilledLimit(NamedTuple):
    """A limit on connections that is nearly full, with held sessions a large part of what is used."""

    slots: SlotUsage
    #: Held sessions of the client, also those that are not over the hold limit yet.
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What held sessions cost others."""

    #: Connection slots that nobody else can use.
    slots: int
    #: Sessions of any client that wait for them, directly or behind another waiter.
    blocked: int = 0
    #: For how many seconds somebody has waited for them; waiters may have given up, and others come.
    blocked_seconds: float = 0.0
    #: Another client of which all running sessions wait for them; None if there is none.
    stopped: Client | None = None
    #: How many transactions they hold back vacuum by.
    xmin_age_max: int | None = None
    #: Age of their oldest transaction id, in transactions. None when they have changed nothing.
    xid_age_max: int | None = None
    #: The limit that the held sessions of the client fill; None if there is none.
    fills: FilledLimit | None = None
    #: The size of the client's own pool if all of it is held, so that the client stands still; else None.
    own_pool: int | None = None


class Recurrence(NamedTuple):
    """Long holds at one site that end by themselves and come back."""

    #: How many ended lately, and in which time, in seconds.
    holds: int
    within: float
    #: The shortest and the longest of them, in seconds; of holds that began together, only the longest counts.
    shortest: float
    longest: float


class CodeLineSessions(NamedTuple):
    """A line of code in the tags of statements, and how many sessions show it."""

    code_line: CodeLine
    sessions: int


class FindingKey(NamedTuple):
    """Identifies a finding among those that are open."""

    client: Client
    kind: LeakKind
    #: Where it happens, readable and bounded: the route or controller in the tags, else the verb and tables.
    site: str


class FindingId(NamedTuple):
    """Identifies a finding on its server, among all that were ever opened."""

    opened_as: FindingKey
    opened_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Sessions of one client that are held at one site."""

    key: FindingKey
    #: Its key when it was opened. The key may change later; `opened_as` does not.
    opened_as: FindingKey
    severity: Severity
    #: True for a *leak*, which keeps growing or has lasted too long. False while its sessions may still end by
    #: themselves.
    is_leak: bool
    #: Whether its client is a maintenance tool, such as psql or pg_dump.
    is_tool: bool
    #: The sessions held now, the longest held first; those that are hidden, as they were when they were last seen.
    #: Empty for a while before the finding closes.
    sessions: tuple[Session, ...]
    #: The sessions held now, or while there are none, those that were held last. They show the site and the software.
    evidence: tuple[Session, ...]
    #: Every address they come from.
    origins: tuple[str, ...]
    #: When the first of its sessions began to be held, and when the finding was opened, by the server's clock.
    since: float
    opened_at: float
    #: All sessions it has ever had.
    total: int
    #: New held sessions per minute, at present, without those that will end by themselves.
    rate_per_minute: float
    #: Seconds until the first limit that applies to its client is reached; infinite when it is not growing.
    exhaustion_seconds: float
    harm: Harm
    #: The last write of its transactions, where one was seen and names the place better than the last statement. It is
    #: chosen when the finding is opened.
    write: Statement | None = None
    #: While any of its sessions is hidden: the server's time of the poll that saw it last. Meanwhile rate, recurrence
    #: and what speaks for a leak stay as they were.
    unseen_since: float | None = None
    #: While it has no sessions: when it closes, by the server's clock, unless another session is held before.
    closes_at: float | None = None
    #: The limit, in seconds, that the configuration sets for its holds; None if it sets none, or several.
    configured_limit: float | None = None
    #: Its holds end and come back, again and again; None if they do not.
    recurrence: Recurrence | None = None

    @property
    def site(self) -> str:
        """Where it happens, for people and labels: its last write, else the site of its key."""
        return self.key.site if self.write is None else self.write.site

    @property
    def code_lines(self) -> tuple[CodeLineSessions, ...]:
        """The lines of code in the tags of its sessions' statements, most sessions first; at most 5."""
        of_write = self.write.code_line if self.write else None
        found = Counter(session.statement.code_line or of_write for session in self.evidence)
        return tuple(
            CodeLineSessions(line, sessions)
            for line, sessions in sorted(found.items(), key=lambda each: (-each[1], str(each[0])))
            if line is not None
        )[:MAX_CODE_LINES]

    @property
    def state(self) -> FindingState:
        """Whether it still has sessions, and whether they can be seen."""
        if self.unseen_since is not None:
            return FindingState.UNSEEN
        return FindingState.OPEN if self.sessions else FindingState.RECOVERING

    @property
    def id(self) -> FindingId:
        """What identifies the finding on its server, also after it has closed."""
        return FindingId(self.opened_as, self.opened_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The verdict on a server or on one of its clients."""

    #: None for the whole server.
    client: Client | None
    verdict: Verdict
    #: One line for a person: the numbers or the blocker behind the verdict.
    reason: str = ""
