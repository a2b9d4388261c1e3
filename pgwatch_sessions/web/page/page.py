"""The page as texts for the templates: what is wrong, which client causes it, and what to do now."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pgwatch_sessions.core.findings import Verdict
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, LimitScope, SessionState
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.clients import ClientSummary
from pgwatch_sessions.core.summaries.poll import PollSummary
from pgwatch_sessions.web.page.card import Card, card_of
from pgwatch_sessions.web.page.headline import ColouredText, headline_of
from pgwatch_sessions.web.ranked_findings import add_details, rank_findings
from pgwatch_sessions.wording.amounts import counted, duration, moment, until_full
from pgwatch_sessions.wording.events import FOLDED_CLIENTS_REMEDY, grant_statement
from pgwatch_sessions.wording.failures import FAILURES
from pgwatch_sessions.wording.labels import VERDICTS, limit_name
from pgwatch_sessions.wording.lines import Tone
from pgwatch_sessions.wording.not_judged import not_judged_text
from pgwatch_sessions.wording.sentences import hidden_text

#: Shown of each server.
MAX_FINDINGS = 50
MAX_CLIENTS = 100
MAX_LIMITS = 20
MAX_NOT_JUDGED = 20
REFRESH_SECONDS = 10

#: States with a column of their own; the others are counted in one more column.
_COLUMN_STATES = (SessionState.ACTIVE, SessionState.IDLE, SessionState.IDLE_IN_TRANSACTION, SessionState.ABORTED)
#: The other verdicts name a problem that is not a leak: `warn`.
_TONES: dict[Verdict, Tone] = {Verdict.OK: Tone.GOOD, Verdict.UNKNOWN: Tone.NOTE, Verdict.LEAKING: Tone.BAD}


class Link(NamedTuple):
    """A path that the daemon answers, and what it answers in a few words."""

    path: str
    meaning: str


class LimitRow(NamedTuple):
    """A row in the table of limits on connections."""

    name: str
    used: int
    capacity: int
    #: When the limit will be reached, for example `in 3 min`; empty if there is no forecast.
    reached: str


class ClientRow(NamedTuple):
    """A row in the table of clients."""

    client: Client
    verdict: ColouredText
    #: One text for each column of numbers.
    numbers: Sequence[ColouredText]


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What the last poll of a server showed, if it succeeded."""

    #: Whether ordinary roles can no longer connect.
    exhausted: bool
    #: What cannot be seen, and the statement that shows it; both empty if no session is hidden.
    hidden: str
    grant: str
    #: For example `3 clients are`, and how to list them; both empty if none is counted as `other`.
    folded: str
    unfold: str
    limits: Sequence[LimitRow]
    #: For example `2 limits`; empty if all are shown.
    limits_omitted: str
    clients: Sequence[ClientRow]
    clients_omitted: str
    #: Which held sessions are not reported, and why.
    not_judged: Sequence[str]
    not_judged_omitted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSection:
    """Everything that the page shows of one server."""

    name: str
    #: None before the first poll, and if the last poll failed.
    verdict: ColouredText | None
    #: The numbers behind the verdict; may be empty.
    reason: str
    #: Time of the last successful poll, by the server's clock; empty if there was none.
    polled_at: str
    #: Why the last poll failed, and what the server or the driver said; both empty if it did not fail.
    failure: str
    failure_detail: str
    #: None before the first poll, and if the last poll failed.
    poll: Poll | None
    cards: Sequence[Card]
    findings_omitted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything that the page shows."""

    version: str
    #: None if the page does not refresh itself.
    refresh_seconds: int | None
    headline: ColouredText
    servers: Sequence[ServerSection]
    links: Sequence[Link]


def page_of(states: Collection[ServerState], *, version: str, links: Sequence[Link], refreshing: bool) -> Page:
    """Put the published states into texts.

    Without `refreshing` the page stays as it is, so that a person can read it and copy statements from it.
    """
    return Page(
        version=version,
        refresh_seconds=REFRESH_SECONDS if refreshing else None,
        headline=headline_of(states),
        servers=[_server_section(state) for state in states],
        links=links,
    )


def _server_section(state: ServerState) -> ServerSection:
    failure = state.failure
    diagnosis = None if failure else state.diagnoses.get(None)
    ranked = rank_findings([state])
    return ServerSection(
        name=state.server,
        verdict=_coloured(diagnosis.verdict, VERDICTS[diagnosis.verdict].capitalize()) if diagnosis else None,
        reason=diagnosis.reason if diagnosis else "",
        polled_at=moment(state.last_summary.snapshot.taken_at) if state.last_summary else "",
        failure=FAILURES[failure.reason] if failure else "",
        failure_detail=failure.detail if failure else "",
        poll=_poll(state, state.summary) if state.summary else None,
        cards=[card_of(details) for details in add_details(ranked[:MAX_FINDINGS])],
        findings_omitted=_omitted(len(ranked) - MAX_FINDINGS, "finding"),
    )


def _poll(state: ServerState, view: PollSummary) -> Poll:
    limits = sorted(view.slots, key=lambda slots: (slots.scope is not LimitScope.SERVER, slots.capacity - slots.used))
    clients = sorted(view.clients, key=lambda each: (_is_healthy(each, state), -each.sessions, each.client))
    return Poll(
        exhausted=view.exhausted,
        hidden=hidden_text(view.hidden, len(view.snapshot.sessions)) if view.hidden else "",
        grant=grant_statement(view.snapshot.own_user) if view.hidden else "",
        folded=counted(view.folded, "client is", "clients are") if view.folded else "",
        unfold=FOLDED_CLIENTS_REMEDY if view.folded else "",
        limits=[_limit_row(slots, state) for slots in limits[:MAX_LIMITS]],
        limits_omitted=_omitted(len(limits) - MAX_LIMITS, "limit"),
        clients=[_client_row(summary, state) for summary in clients[:MAX_CLIENTS]],
        clients_omitted=_omitted(len(clients) - MAX_CLIENTS, "client"),
        not_judged=[not_judged_text(each) for each in state.not_judged[:MAX_NOT_JUDGED]],
        not_judged_omitted=_omitted(len(state.not_judged) - MAX_NOT_JUDGED, "line"),
    )


def _omitted(number: int, what: str) -> str:
    return counted(number, what) if number > 0 else ""


def _limit_row(slots: SlotUsage, state: ServerState) -> LimitRow:
    seconds = state.exhaustion.get(slots.limit)
    return LimitRow(limit_name(slots.limit), slots.used, slots.capacity, "" if seconds is None else until_full(seconds))


def _is_healthy(summary: ClientSummary, state: ServerState) -> bool:
    diagnosis = state.diagnoses.get(summary.client)
    return diagnosis is None or diagnosis.verdict is Verdict.OK


def _client_row(summary: ClientSummary, state: ServerState) -> ClientRow:
    diagnosis = state.diagnoses.get(summary.client)
    verdict = diagnosis.verdict if diagnosis else Verdict.UNKNOWN
    return ClientRow(summary.client, _coloured(verdict, str(verdict)), _numbers(summary))


def _numbers(summary: ClientSummary) -> Sequence[ColouredText]:
    if summary.hidden:  # the numbers of the visible sessions alone would mislead
        texts = *[""] * len(_COLUMN_STATES), f"{summary.hidden:,} hidden", "", "", ""
        return [ColouredText(text) for text in texts]
    return (
        *(_count(summary.states[state], alarming=state in IDLE_IN_TRANSACTION_STATES) for state in _COLUMN_STATES),
        _count(sum(number for state, number in summary.states.items() if state not in _COLUMN_STATES)),
        _age(summary.idle_in_transaction_age_max),
        _age(summary.transaction_age_max),
        _count(summary.lock_waiting, alarming=True),
    )


def _count(number: int, *, alarming: bool = False) -> ColouredText:
    return ColouredText(f"{number:,}", Tone.SOFT if not number else Tone.WARN if alarming else Tone.PLAIN)


def _age(seconds: float | None) -> ColouredText:
    return ColouredText("" if seconds is None else duration(seconds))


def _coloured(verdict: Verdict, text: str) -> ColouredText:
    return ColouredText(text, _TONES.get(verdict, Tone.WARN))
