"""The page: what is wrong, who does it, and what to do now; complete in itself, without scripts, safe to leave open."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from pgwatch_sessions.core.findings import Diagnosis, Severity, Verdict
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, SessionState
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.clients import ClientSummary
from pgwatch_sessions.core.summaries.poll import PollSummary
from pgwatch_sessions.exposition.cards import card
from pgwatch_sessions.exposition.markup import Html, element, table, with_code
from pgwatch_sessions.exposition.style import STYLE
from pgwatch_sessions.web.ranked_findings import Ranked, evidence_of, worst_first
from pgwatch_sessions.wording.amounts import counted, duration, moment, until_full
from pgwatch_sessions.wording.events import FOLDED_CLIENTS_REMEDY, grant_statement
from pgwatch_sessions.wording.failures import FAILURES
from pgwatch_sessions.wording.labels import VERDICTS, limit_name

#: Of one server.
MAX_FINDINGS = 50
MAX_CLIENTS = 100
MAX_LIMITS = 20
MAX_HEADLINES = 3
REFRESH_SECONDS = 10

_OWN_COLUMN = (SessionState.ACTIVE, SessionState.IDLE, SessionState.IDLE_IN_TRANSACTION, SessionState.ABORTED)
_TONES = {Verdict.OK: "good", Verdict.UNKNOWN: "note", Verdict.LEAKING: "bad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An address of the daemon, and in a few words what is there."""

    path: str
    meaning: str


def page(states: Collection[ServerState], *, version: str, links: Iterable[Link], refreshing: bool) -> str:
    """Write the page; one that does not refresh itself can be read and copied from in peace."""
    findings = worst_first(states)
    headline, tone = _headline(states, findings)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="refresh", content=str(REFRESH_SECONDS)) if refreshing else Html(),
        element("title", f"{headline} · pgwatch-sessions"),
        element("style", Html(STYLE)),
    )
    body = element(
        "body",
        element("header", element("strong", "pgwatch-sessions"), f"version {version}", _refreshing(on=refreshing)),
        element("main", element("h1", headline, class_=tone), *(_server(state) for state in states)),
        element("footer", *(element("a", link.path, href=link.path.lstrip("/"), title=link.meaning) for link in links)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _refreshing(*, on: bool) -> Html:
    if on:
        hold = element("a", "hold still", href="?refresh=off")
        return element("span", f"refreshes every {REFRESH_SECONDS} s · ", hold)
    return element("span", "held still · ", element("a", "refresh", href="."))


def _headline(states: Collection[ServerState], findings: Sequence[Ranked]) -> tuple[str, str]:
    """Say what is wrong, the worst first, in a line, and its tone."""
    grave = [each for each in findings if each.finding.severity is not Severity.NOTICE]
    wrong = [
        *([_worst(grave, several=len(states) > 1)] if grave else []),
        *((f"{state.server} cannot be seen", "bad") for state in states if state.failure),
        *(
            (f"{state.server}: {VERDICTS[verdict.verdict]}", "warn")
            for state in states
            if (verdict := state.diagnoses.get(None)) and verdict.verdict not in _TONES
        ),
    ]
    if wrong:
        more = f"; and {len(wrong) - MAX_HEADLINES} more" if len(wrong) > MAX_HEADLINES else ""
        return "; ".join(line for line, _ in wrong[:MAX_HEADLINES]) + more, wrong[0][1]
    if not all(state.polled for state in states):
        return "No poll yet", "note"
    notices = f" ({counted(len(findings), 'notice')})" if findings else ""
    return f"Nothing is leaking{notices}", "good"


def _worst(grave: Sequence[Ranked], *, several: bool) -> tuple[str, str]:
    finding, state = grave[0]
    what = "leaks" if finding.is_leak else "holds connections"
    where = f" of {state.server}" if several else ""
    left = (
        f", out of connections {until_full(finding.exhaustion_seconds)}" if isfinite(finding.exhaustion_seconds) else ""
    )
    more = f", and {counted(len(grave) - 1, 'more finding')}" if len(grave) > 1 else ""
    tone = "bad" if finding.severity is Severity.CRITICAL else "warn"
    return f"{finding.key.client.application} {what} at {finding.key.site}{where}{left}{more}", tone


def _server(state: ServerState) -> Html:
    verdict = state.diagnoses.get(None)
    return element(
        "section",
        element("h2", state.server),
        _verdict(verdict) if verdict and not state.failure else "",
        _sight(state),
        *(_remarks(state.summary) if state.summary else ()),
        _limits(state, state.summary) if state.summary else "",
        *_findings(state),
        _clients(state, state.summary) if state.summary else "",
    )


def _verdict(verdict: Diagnosis) -> Html:
    words = VERDICTS[verdict.verdict].capitalize()
    text = element("strong", words, class_=_TONES.get(verdict.verdict, "warn"))
    return element("p", text, f" · {verdict.reason}" if verdict.reason else "", class_="verdict")


def _sight(state: ServerState) -> Html:
    if state.failure is None:
        seen = f"Seen at {moment(state.last_summary.snapshot.taken_at)}." if state.last_summary else "No poll yet."
        return element("p", seen, class_="soft")
    since = "It was never seen." if state.last_success is None else f"Last seen at {moment(state.last_success)}."
    detail = f" ({state.failure.detail})" if state.failure.detail else ""
    return element(
        "div",
        element("h3", f"Not seen: {FAILURES[state.failure.reason]}", class_="bad"),
        element("p", f"{since} Polling goes on.{detail}"),
        class_="card down",
    )


def _remarks(view: PollSummary) -> Iterator[Html]:
    if view.exhausted:
        full = "Every ordinary connection is in use: only privileged roles can still connect."
        yield element("div", element("p", element("strong", full, class_="bad")), class_="card down")
    if view.hidden:
        yield _remark(
            f"{counted(view.hidden, 'session is', 'sessions are')} hidden from us: no leak of theirs is found. "
            "Let a superuser run:",
            element("pre", element("code", grant_statement(view.snapshot.own_user))),
        )
    if view.folded:
        yield _remark(
            f"{counted(view.folded, 'client is', 'clients are')} shown as one, `other`: {FOLDED_CLIENTS_REMEDY}."
        )


def _remark(*content: str) -> Html:
    parts = (part if isinstance(part, Html) else element("p", with_code(part)) for part in content)
    return element("div", *parts, class_="card notice")


def _findings(state: ServerState) -> Iterator[Html]:
    ranked = worst_first([state])
    if not ranked and state.summary:
        yield element("p", "No leak is open.", class_="good")
    if ranked and state.failure:
        yield element("p", "What was open at the last poll that succeeded; not seeing is not gone.", class_="soft")
    yield from map(card, evidence_of(ranked[:MAX_FINDINGS]))
    if len(ranked) > MAX_FINDINGS:
        yield element("p", f"And {counted(len(ranked) - MAX_FINDINGS, 'more finding')} that weigh less.", class_="soft")


def _limits(state: ServerState, view: PollSummary) -> Html:
    nearest = sorted(view.slots, key=lambda slots: (slots.scope is not slots.scope.SERVER, slots.used - slots.capacity))
    more = f"; {len(nearest) - MAX_LIMITS:,} more, less used" if len(nearest) > MAX_LIMITS else ""
    return table(
        ("connections of", "in use#", "limit#", "", "full"),
        (_limit(slots, state) for slots in nearest[:MAX_LIMITS]),
        caption=f"Connections{more}",
    )


def _limit(slots: SlotUsage, state: ServerState) -> Sequence[str]:
    meter = element(
        "meter",
        f"{slots.used} of {slots.capacity}",
        value=min(slots.used, slots.capacity),
        max=slots.capacity,
        low=0.7 * slots.capacity,
        high=0.9 * slots.capacity,
        optimum=0,
    )
    seconds = state.exhaustion.get(slots.limit)
    return (
        limit_name(slots.limit),
        f"{slots.used:,}",
        f"{slots.capacity:,}",
        meter,
        "" if seconds is None else until_full(seconds),
    )


def _clients(state: ServerState, view: PollSummary) -> Html:
    shown = sorted(view.clients, key=lambda each: (_calm(each, state), -each.sessions, each.client))
    more = f"; {len(shown) - MAX_CLIENTS:,} more with fewer sessions" if len(shown) > MAX_CLIENTS else ""
    return table(
        (
            *("application", "user", "database", "verdict"),
            *("active#", "idle#", "idle in transaction#", "aborted#", "other#"),
            *("longest idle in transaction#", "oldest transaction#", "waiting for locks#"),
        ),
        (_client(each, state) for each in shown[:MAX_CLIENTS]),
        caption=f"Clients and their sessions by state{more}",
    )


def _calm(summary: ClientSummary, state: ServerState) -> bool:
    diagnosis = state.diagnoses.get(summary.client)
    return diagnosis is None or diagnosis.verdict is Verdict.OK


def _client(summary: ClientSummary, state: ServerState) -> Sequence[str]:
    diagnosis = state.diagnoses.get(summary.client)
    verdict = diagnosis.verdict if diagnosis else Verdict.UNKNOWN
    names = (
        summary.client.application,
        summary.client.user,
        summary.client.database,
        element("span", str(verdict), class_=_TONES.get(verdict, "warn")),
    )
    if summary.hidden:  # half the truth would look like all of it
        return (*names, *[""] * len(_OWN_COLUMN), f"{summary.hidden:,} hidden", "", "", "")
    others = sum(number for name, number in summary.states.items() if name not in _OWN_COLUMN)
    return (
        *names,
        *(_count(summary.states[name], alarming=name in IDLE_IN_TRANSACTION_STATES) for name in _OWN_COLUMN),
        _count(others),
        _age(summary.idle_in_transaction_age_max),
        _age(summary.transaction_age_max),
        _count(summary.lock_waiting, alarming=True),
    )


def _count(number: int, *, alarming: bool = False) -> Html:
    tone = "soft" if not number else "warn" if alarming else None
    return element("span", f"{number:,}", class_=tone)


def _age(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)
