"""What is wrong, as values: findings with their evidence, diagnoses, and the changes of both."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pgwatch_sessions.core.model import Client, Session, SessionId


class Kind(StrEnum):
    """What a leak leaves behind on the server."""

    #: Idle in transaction, aborted or not, and not moving.
    TRANSACTION_HELD = "transaction_held"
    #: Idle with the application's own statement, where this client otherwise hands its sessions back.
    CONNECTION_HELD = "connection_held"
    #: One origin opens session after session and never uses the earlier ones again.
    ORIGIN_GROWTH = "origin_growth"


class Severity(StrEnum):
    """How much a finding matters, least first; compare by `rank`."""

    #: Evidence only.
    NOTICE = "notice"
    #: Recurring at a site, long, or harmful.
    WARNING = "warning"
    #: Nobody can connect soon or now, or others are blocked.
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for the least."""
        return tuple(Severity).index(self)


class Verdict(StrEnum):
    """What is wrong with a client or a server."""

    OK = "ok"
    LEAKING = "leaking"
    #: Pool or server too small: all busy, turning over.
    SATURATED = "saturated"
    #: Behind one blocker.
    BLOCKED = "blocked"
    SLOW = "slow"
    #: Not enough sight.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What held sessions cost others."""

    #: Connections that nobody else can have.
    slots: int
    #: Sessions of anybody that wait for them, directly or behind each other.
    blocked: int = 0
    #: How many transactions back they hold vacuum.
    xmin_age_max: int | None = None
    #: The oldest transaction id they hold, in transactions ago.
    xid_age_max: int | None = None


class FindingKey(NamedTuple):
    """What identifies a finding while it is open."""

    client: Client
    kind: Kind
    #: Readable and bounded: route or controller where tags show one, else verb and tables.
    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One leak: sessions of one client, held at one site."""

    key: FindingKey
    #: Its key when it was opened, which kind and site may have left since; with `opened_at` it is unique for ever.
    opened_as: FindingKey
    severity: Severity
    #: Whether it keeps growing or stays too long (*leak*), or may still end by itself (*held*).
    is_leak: bool
    #: The sessions held now, the longest first; empty shortly before the finding closes.
    sessions: tuple[Session, ...]
    #: Every address they come from.
    origins: tuple[str, ...]
    #: When the first of its sessions was held, and when this was found, by the server's clock.
    since: float
    opened_at: float
    #: Sessions it has had in all.
    total: int
    #: New held sessions a minute at present.
    rate_per_minute: float
    #: Time until the nearest limit that its client counts against is reached; infinite when it is not growing.
    exhaustion_seconds: float
    harm: Harm

    @property
    def ids(self) -> frozenset[SessionId]:
        """The sessions' identities."""
        return frozenset(session.id for session in self.sessions)


class Opened(NamedTuple):
    """A leak was found."""

    finding: Finding


class Changed(NamedTuple):
    """Severity changed, or sessions, rate or forecast moved by more than a fifth since it was last told."""

    finding: Finding
    #: As it was last told.
    before: Finding


class Closed(NamedTuple):
    """Its sessions are gone, or move again."""

    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is wrong with a server, or with one client of it."""

    #: None for the whole server.
    client: Client | None
    verdict: Verdict
    #: One line for a human: the numbers or the blocker behind the verdict.
    reason: str = ""


class Diagnosed(NamedTuple):
    """A verdict changed."""

    diagnosis: Diagnosis
    before: Verdict | None
