"""One finding as texts for `card.html`: which client leaks, since when, how fast, why, and what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pgwatch_sessions.core.findings import Severity
from pgwatch_sessions.core.model import Client, Session
from pgwatch_sessions.web.ranked_findings import FindingDetails, seconds_in_state
from pgwatch_sessions.wording.advice import Advice
from pgwatch_sessions.wording.amounts import counted, duration, moment, until_full
from pgwatch_sessions.wording.labels import HOW_HELD, limit_name

#: Sessions listed on a card.
MAX_SESSIONS = 10
_MAX_ORIGINS = 5
#: Characters of a statement.
_MAX_STATEMENT = 300

#: The style sheet's class that colours a text; an empty one leaves its colour.
Tone = Literal["good", "note", "warn", "bad", "soft", ""]

_TONES: dict[Severity, Tone] = {Severity.CRITICAL: "bad", Severity.WARNING: "warn", Severity.NOTICE: "note"}


class Figure(NamedTuple):
    """A labelled value with a small note below it, for example `Since`, `6 min ago`, `2027-01-15 08:00:00 UTC`."""

    label: str
    value: str
    note: str = ""
    tone: Tone = ""


class SessionRow(NamedTuple):
    """A row in the table of held sessions."""

    pid: int
    held_for: str
    state: str
    address: str
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything that the page shows of one finding."""

    anchor: str
    severity: Severity
    tone: Tone
    client: Client
    #: False if the sessions may still end by themselves.
    is_leak: bool
    how_held: str
    site: str
    figures: Sequence[Figure]
    advice: Advice
    #: The sessions held longest, longest first.
    sessions: Sequence[SessionRow]
    #: Held sessions that are not among `sessions`.
    sessions_omitted: int
    #: The last statement of all listed sessions; None if they differ.
    common_statement: str | None


def card_of(details: FindingDetails) -> Card:
    """Put a finding into texts."""
    finding = details.finding
    rows = [_session_row(session, details.polled_at) for session in finding.sessions[:MAX_SESSIONS]]
    statements = {session.statement.text for session in finding.sessions[:MAX_SESSIONS]}
    return Card(
        anchor=details.anchor,
        severity=finding.severity,
        tone=_TONES[finding.severity],
        client=finding.key.client,
        is_leak=finding.is_leak,
        how_held=HOW_HELD[finding.key.kind],
        site=finding.key.site,
        figures=tuple(_figures(details)),
        advice=details.advice,
        sessions=rows,
        sessions_omitted=len(finding.sessions) - len(rows),
        common_statement=rows[0].statement if len(statements) == 1 else None,
    )


def _figures(details: FindingDetails) -> Iterator[Figure]:
    finding, harm = details.finding, details.finding.harm
    total = f"{finding.total:,} in total" if finding.total != len(finding.sessions) else ""
    yield Figure("Held now", counted(len(finding.sessions), "session"), total)
    yield Figure("Since", f"{duration(details.polled_at - finding.since)} ago", moment(finding.since))
    yield Figure("Rate", f"{finding.rate_per_minute:.3g} a minute" if finding.rate_per_minute else "no new sessions")
    limit = f"limit of {limit_name(details.nearest_limit)}" if details.nearest_limit else ""
    yield Figure("Out of connections", until_full(finding.exhaustion_seconds), limit)
    if harm.blocked:
        yield Figure("Blocks", counted(harm.blocked, "session"), tone="bad")
    if harm.xmin_age_max:
        yield Figure("Holds back vacuum by", counted(harm.xmin_age_max, "transaction"))
    if finding.origins:
        more = len(finding.origins) - _MAX_ORIGINS
        yield Figure("From", ", ".join(finding.origins[:_MAX_ORIGINS]), f"and {more:,} more" if more > 0 else "")


def _session_row(session: Session, polled_at: float) -> SessionRow:
    held = seconds_in_state(session, polled_at)
    text = session.statement.text
    return SessionRow(
        pid=session.id.pid,
        held_for="?" if held is None else duration(held),
        state=str(session.state or "hidden"),
        address=_address(session),
        statement=text if len(text) <= _MAX_STATEMENT else f"{text[: _MAX_STATEMENT - 1]}…",
    )


def _address(session: Session) -> str:
    if session.client_addr is None:
        return "Unix socket"
    port = session.client_port
    return session.client_addr if port is None or port < 0 else f"{session.client_addr} port {port}"
