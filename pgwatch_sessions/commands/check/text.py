"""The result of a check as text: the sessions of each client, the findings, and what to do about them."""

import sys
from collections.abc import Iterable, Iterator, Sequence

from pgwatch_sessions.commands.check.result import CheckResult
from pgwatch_sessions.core.findings import Finding, Severity
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import LimitScope, Session, SessionState
from pgwatch_sessions.core.summaries.clients import ClientSummary
from pgwatch_sessions.core.summaries.not_judged import NotJudgedReason
from pgwatch_sessions.settings.quantities import duration_text
from pgwatch_sessions.terminal import SEVERITY_COLOURS, Colour, Paint, folded, table
from pgwatch_sessions.wording.advice import advice_of
from pgwatch_sessions.wording.amounts import counted, duration, moment
from pgwatch_sessions.wording.events import grant_statement
from pgwatch_sessions.wording.failures import FAILURE_ADVICE, failure_text
from pgwatch_sessions.wording.labels import client_name, limit_name, printable
from pgwatch_sessions.wording.not_judged import not_judged_text
from pgwatch_sessions.wording.runbooks import published
from pgwatch_sessions.wording.sentences import diagnosis_text, finding_sentence, hidden_text

#: Clients in the table, sessions of one finding, and clients that are not judged, that are listed.
_MAX_CLIENTS = 100
_MAX_SESSIONS = 10
_MAX_NOT_JUDGED = 20


def report_lines(
    results: Sequence[CheckResult], *, fail_on: Severity, hold_limit: float, paint: Paint
) -> Iterator[str]:
    """Yield the lines of the report."""
    for result in results:
        yield from _server(result, paint)
        for finding in result.findings:
            yield ""
            yield from _finding(finding, result, paint)
        yield from _not_judged(result, hold_limit, paint)
        yield ""
        yield from _conclusion(result, fail_on, hold_limit, paint)
        if result is not results[-1]:
            yield ""


def _server(result: CheckResult, paint: Paint) -> Iterator[str]:
    state = result.state
    failed = f", {result.failed_polls} failed" if result.failed_polls else ""
    line = f"{paint(printable(state.server), Colour.BOLD)}: {counted(result.polls, 'poll')}{failed}"
    if state.last_summary is None:
        yield line
        return
    diagnosis = state.diagnoses.get(None)
    verdict = [f"diagnosis: {diagnosis_text(diagnosis)}"] if diagnosis else []
    yield ", ".join([line, *_slots(result, state.last_summary.slots), *verdict])
    yield ""
    yield from _clients(result, paint) if result.clients else ["No client has a session."]


def _slots(result: CheckResult, slots: Sequence[SlotUsage]) -> Iterator[str]:
    """Say how full the server is, and which limits of its clients are fuller than the server."""
    share = 0.0
    for each in slots:
        if each.scope is LimitScope.SERVER:
            share = each.used / each.capacity
            yield f"{each.used} of {each.capacity} slots used"
        elif each.used > share * each.capacity and any(each.limit.applies_to(own.client) for own in result.clients):
            yield f"{each.used} of {each.capacity} by {printable(limit_name(each.limit))}"


def _clients(result: CheckResult, paint: Paint) -> Iterator[str]:
    shown = result.clients[:_MAX_CLIENTS]
    states = [state for state in SessionState if any(client.states[state] for client in shown)]
    hidden = ["hidden"] if result.hidden else []
    header, *rows = table(
        ["client", "sessions", *states, *hidden, "diagnosis"],
        [_client_row(client, states, result) for client in shown],
    )
    yield paint(header, Colour.BOLD)
    yield from rows
    if len(result.clients) > len(shown):
        yield f"and {len(result.clients) - len(shown)} more"


def _client_row(client: ClientSummary, states: Iterable[SessionState], result: CheckResult) -> list[str]:
    diagnosis = result.state.diagnoses.get(client.client)
    return [
        client_name(client.client),
        str(client.sessions),
        *(_in_state(client, state) for state in states),
        *([str(client.hidden)] if result.hidden else []),
        str(diagnosis.verdict) if diagnosis else "",
    ]


def _in_state(client: ClientSummary, state: SessionState) -> str:
    number, age = client.states[state], client.state_age_max.get(state)
    if not number:
        return "-"
    return str(number) if age is None or round(age) < 1 else f"{number}, {duration(age)}"


def _finding(finding: Finding, result: CheckResult, paint: Paint) -> Iterator[str]:
    advice = advice_of(finding, result.sessions_of(finding.key.client))
    severity = paint(finding.severity.upper(), SEVERITY_COLOURS[finding.severity])
    yield f"{severity}  {finding_sentence(finding, at=result.polled_at)}"
    for session in finding.sessions[:_MAX_SESSIONS]:
        yield f"  {_session(session)}"
    if len(finding.sessions) > _MAX_SESSIONS:
        yield f"  and {len(finding.sessions) - _MAX_SESSIONS} more"
    for heading, paragraphs in (("likely cause", (advice.cause,)), ("what to do", advice.steps)):
        yield f"  {paint(heading, Colour.BOLD)}"
        for paragraph in paragraphs:
            yield from folded(printable(paragraph), sys.stdout, indent="    ")
    if advice.terminate:
        yield f"  {paint('to terminate the sessions, run in psql', Colour.BOLD)}"
        yield from (f"    {line}" for line in advice.terminate.splitlines())
    yield f"  {paint('runbook', Colour.BOLD)}  {published(advice.runbook)}"
    if advice.stack:
        name, evidence, runbook = advice.stack
        yield f"    for {name} (shown by {evidence}): {published(runbook)}"


def _session(session: Session) -> str:
    since = "" if session.state_change is None else f" since {moment(session.state_change)}"
    statement = f": {session.statement.text}" if session.statement.text else ""
    return printable(
        f"pid {session.id.pid} from {session.client_addr or 'a Unix socket'}, {session.state}{since}{statement}"
    )


def _not_judged(result: CheckResult, hold_limit: float, paint: Paint) -> Iterator[str]:
    if not result.not_judged:
        return
    yield ""
    yield paint("Not judged", Colour.BOLD)
    for each in result.not_judged[:_MAX_NOT_JUDGED]:
        yield from folded(not_judged_text(each), sys.stdout, indent="  ")
    if len(result.not_judged) > _MAX_NOT_JUDGED:
        yield f"  and {len(result.not_judged) - _MAX_NOT_JUDGED} more"
    if any(each.reason is NotJudgedReason.YOUNG for each in result.not_judged):
        yield f"  Use --for {duration_text(hold_limit)} to poll until the hold limit is over."


def _conclusion(result: CheckResult, fail_on: Severity, hold_limit: float, paint: Paint) -> Iterator[str]:
    failure, summary = result.state.failure, result.state.last_summary
    if failure is not None:
        yield paint(f"Cannot poll this server: {failure_text(failure)}", Colour.RED)
        if failure.reason in FAILURE_ADVICE:
            yield FAILURE_ADVICE[failure.reason]
        return
    if result.hidden and summary is not None:
        yield paint(f"{hidden_text(result.hidden, result.session_count)}.", Colour.RED)
        yield f"To show hidden sessions, run as a superuser: {grant_statement(summary.snapshot.own_user)}"
        return
    if result.findings and result.findings[0].severity is Severity.NOTICE and result.seconds_watched < hold_limit:
        yield (
            "A notice is evidence only: in this time, a leak looks the same as work that will end. "
            f"Use --for {duration_text(2 * hold_limit)} to tell them apart."
        )
    failing = sum(finding.severity.rank >= fail_on.rank for finding in result.findings)
    worse = "" if fail_on is Severity.CRITICAL else " or worse"
    if failing:
        yield paint(f"{counted(failing, 'finding')} of severity {fail_on}{worse}.", Colour.RED)
    else:
        yield paint(f"No finding of severity {fail_on}{worse}.", Colour.GREEN)
