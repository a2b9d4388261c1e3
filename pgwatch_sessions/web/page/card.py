"""One finding as texts for `card.html`: which client leaks, since when, how fast, why, and what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pgwatch_sessions.core.model import Session
from pgwatch_sessions.web.ranked_findings import FindingDetails, seconds_in_state
from pgwatch_sessions.wording.advice import Advice
from pgwatch_sessions.wording.amounts import ago, counted, duration, growth, moment, until, until_full
from pgwatch_sessions.wording.harm import held_back
from pgwatch_sessions.wording.labels import limit_name
from pgwatch_sessions.wording.lines import Tone, finding_label, finding_tone
from pgwatch_sessions.wording.sentences import finding_sentence

#: Sessions listed on a card.
MAX_SESSIONS = 10
_MAX_ORIGINS = 5
#: Characters of a statement.
_MAX_STATEMENT = 300


class Figure(NamedTuple):
    """A labelled value with a small note below it, for example `Since`, `6 min ago`, `2027-01-15 08:00:00 UTC`."""

    label: str
    value: str
    note: str = ""
    tone: Tone = Tone.PLAIN


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
    #: The severity, `unseen` or `recovering`.
    label: str
    tone: Tone
    #: The one sentence on the finding.
    sentence: str
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
    rows = [_session_row(session, details.seen_at) for session in finding.sessions[:MAX_SESSIONS]]
    statements = {session.statement.text for session in finding.sessions[:MAX_SESSIONS]}
    return Card(
        anchor=details.anchor,
        label=finding_label(finding),
        tone=finding_tone(finding),
        sentence=finding_sentence(finding, at=details.polled_at),
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
    yield Figure("Since", ago(details.polled_at - finding.since), moment(finding.since))
    if finding.closes_at is not None:
        yield Figure("Closes", until(finding.closes_at - details.polled_at), "unless it leaks again")
    else:
        yield Figure("Rate", growth(finding.rate_per_minute) or "no new sessions")
        limit = f"limit of {limit_name(details.nearest_limit)}" if details.nearest_limit else ""
        yield Figure("Out of connections", until_full(finding.exhaustion_seconds), limit)
    if harm.blocked:
        yield Figure("Blocks", counted(harm.blocked, "session"), tone=Tone.BAD)
    if held_back(harm):
        yield Figure("Holds back vacuum by", held_back(harm))
    if finding.origins:
        more = len(finding.origins) - _MAX_ORIGINS
        yield Figure("From", ", ".join(finding.origins[:_MAX_ORIGINS]), f"and {more:,} more" if more > 0 else "")


def _session_row(session: Session, seen_at: float) -> SessionRow:
    held = seconds_in_state(session, seen_at)
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
