"""One finding as a card of the page: who leaks, since when, how fast, why, and what to do."""

from collections.abc import Iterator, Sequence

from pgwatch_sessions.core.findings import Severity
from pgwatch_sessions.core.model import Session
from pgwatch_sessions.exposition.markup import Html, element, joined, table, with_code
from pgwatch_sessions.web.ranked_findings import Evidence, held_seconds
from pgwatch_sessions.wording.amounts import counted, duration, moment, until_full
from pgwatch_sessions.wording.labels import HOW_HELD, limit_name

MAX_SESSIONS = 10
_MAX_ORIGINS = 5
_MAX_STATEMENT = 300
_TONES = {Severity.CRITICAL: "bad", Severity.WARNING: "warn", Severity.NOTICE: "note"}


def card(evidence: Evidence) -> Html:
    """Tell one finding whole."""
    finding, advice = evidence.finding, evidence.advice
    return element(
        "article",
        _title(evidence),
        element("dl", *_numbers(evidence), class_="numbers"),
        element("h4", "Likely cause"),
        element("p", with_code(advice.cause), class_="prose"),
        element("h4", "What to do"),
        element("ol", *(element("li", with_code(step)) for step in advice.steps)),
        _statements_to_paste(advice.terminate),
        _sessions(finding.sessions, evidence.now),
        element("p", "Runbook: ", element("code", advice.runbook), class_="soft"),
        id=evidence.anchor,
        class_=f"card {finding.severity}",
    )


def _title(evidence: Evidence) -> Html:
    finding = evidence.finding
    client = finding.key.client
    return joined(
        (
            element(
                "h3",
                element("span", str(finding.severity), class_=f"badge {_TONES[finding.severity]}"),
                " ",
                element("a", client.application, href=f"#{evidence.anchor}"),
                f"{' leaks' if finding.is_leak else ''}: sessions {HOW_HELD[finding.key.kind]} at ",
                element("code", finding.key.site),
                "" if finding.is_leak else ", and may still end",
            ),
            element("p", f"user {client.user}, database {client.database}", class_="soft"),
        )
    )


def _numbers(evidence: Evidence) -> Iterator[Html]:
    finding, harm = evidence.finding, evidence.finding.harm
    in_all = f"{finding.total:,} in all" if finding.total != len(finding.sessions) else ""
    yield _number("Held now", counted(len(finding.sessions), "session"), in_all)
    yield _number("Since", f"{duration(evidence.now - finding.since)} ago", moment(finding.since))
    yield _number("Rate", f"{finding.rate_per_minute:.3g} a minute" if finding.rate_per_minute else "no new ones")
    where = f"limit of {limit_name(evidence.limit)}" if evidence.limit else ""
    yield _number("Out of connections", until_full(finding.exhaustion_seconds), where)
    if harm.blocked:
        yield _number("Blocks", counted(harm.blocked, "session"), tone="bad")
    if harm.xmin_age_max:
        yield _number("Holds back vacuum by", counted(harm.xmin_age_max, "transaction"))
    if finding.origins:
        more = len(finding.origins) - _MAX_ORIGINS
        shown = ", ".join(finding.origins[:_MAX_ORIGINS])
        yield _number("From", shown, f"and {more} more" if more > 0 else "")


def _number(name: str, value: str, small: str = "", *, tone: str | None = None) -> Html:
    below = element("small", small) if small else ""
    return element("div", element("dt", name), element("dd", value, below, class_=tone))


def _statements_to_paste(statements: Sequence[str]) -> Html:
    if not statements:
        return Html()
    return joined(
        (
            element("h4", "To end the sessions, in psql"),
            element("pre", *(element("code", f"{each}\n") for each in statements)),
        )
    )


def _sessions(sessions: Sequence[Session], now: float) -> Html:
    if not sessions:
        return element("p", "No session is held any more; it closes when none comes.", class_="soft")
    more = len(sessions) - MAX_SESSIONS
    caption = f"The {MAX_SESSIONS} held longest; {more:,} more" if more > 0 else "The sessions, the longest held first"
    shown = sessions[:MAX_SESSIONS]
    common = {session.statement.text for session in shown}
    statement = _statement(shown[0].statement.text) if len(common) == 1 else None
    columns = ("pid", "held for#", "state", "from", *(() if statement is not None else ("last statement",)))
    rows = ((*_session(session, now), _statement(session.statement.text))[: len(columns)] for session in shown)
    once = joined((element("h4", "Last statement of each"), statement)) if statement else Html()
    return joined((once, table(columns, rows, caption=caption)))


def _session(session: Session, now: float) -> Sequence[str]:
    held = held_seconds(session, now)
    return (
        str(session.id.pid),
        "?" if held is None else duration(held),
        str(session.state or "hidden"),
        _address(session),
    )


def _statement(text: str) -> Html:
    shown = text if len(text) <= _MAX_STATEMENT else f"{text[: _MAX_STATEMENT - 1]}…"
    return element("code", shown) if shown else Html()


def _address(session: Session) -> str:
    if session.client_addr is None:
        return "socket"
    port = session.client_port
    return session.client_addr if port is None or port < 0 else f"{session.client_addr} port {port}"
