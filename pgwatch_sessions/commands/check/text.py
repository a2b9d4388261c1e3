"""The result of a check for people: who has which sessions, what was found, and what to do."""

import sys
from collections.abc import Iterable, Iterator, Sequence

from pgwatch_sessions.commands.check.result import Result, Young
from pgwatch_sessions.core.findings import Finding, Severity
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import LimitScope, Session, SessionState
from pgwatch_sessions.core.summaries.clients import ClientSummary
from pgwatch_sessions.settings.quantities import duration_text
from pgwatch_sessions.terminal import SEVERITY_COLOURS, Colour, Paint, folded, table
from pgwatch_sessions.wording.advice import advice_of
from pgwatch_sessions.wording.amounts import counted, duration, moment
from pgwatch_sessions.wording.events import grant_statement
from pgwatch_sessions.wording.failures import FAILURE_ADVICE, failure_text
from pgwatch_sessions.wording.labels import client_name, printable
from pgwatch_sessions.wording.sentences import diagnosis_text, finding_text

#: Clients and sessions that are listed, the most important first.
_MAX_CLIENTS = 100
_MAX_SESSIONS = 10


def text_of_results(results: Sequence[Result], *, fail_on: Severity, hold_limit: float, paint: Paint) -> Iterator[str]:
    """Yield the lines of the report."""
    for result in results:
        yield from _server(result, paint)
        for finding in result.findings:
            yield ""
            yield from _finding(finding, result, paint)
        for young in result.young:
            yield ""
            yield _young(young, hold_limit)
        yield ""
        yield from _conclusion(result, fail_on, hold_limit, paint)
        if result is not results[-1]:
            yield ""


def _server(result: Result, paint: Paint) -> Iterator[str]:
    state = result.state
    polls = f"{counted(result.polls, 'poll')}{_failed(sum(state.poll_failures.values()))}"
    name = paint(printable(state.server), Colour.BOLD)
    if state.last_summary is None:
        yield f"{name}: {polls}"
        return
    used = "".join(_used(result, state.last_summary.slots))
    diagnosis = state.diagnoses.get(None)
    yield f"{name}: {polls}{used}{f', diagnosis: {diagnosis_text(diagnosis)}' if diagnosis else ''}"
    yield ""
    yield from _clients(result, paint) if result.clients else ["No client has a session."]


def _used(result: Result, slots: Sequence[SlotUsage]) -> Iterator[str]:
    """Say how full the server is, and which limits of its clients are fuller still."""
    of_clients = {
        *((LimitScope.ROLE, each.client.user) for each in result.clients),
        *((LimitScope.DATABASE, each.client.database) for each in result.clients),
    }
    share = 0.0
    for each in slots:
        if each.scope is LimitScope.SERVER:
            share = each.used / each.capacity
            yield f", {each.used} of {each.capacity} slots used"
        elif (each.scope, each.name) in of_clients and each.used > share * each.capacity:
            yield f", {each.used} of {each.capacity} by {each.scope} {printable(each.name)}"


def _failed(number: int) -> str:
    return f", {number} failed" if number else ""


def _clients(result: Result, paint: Paint) -> Iterator[str]:
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


def _client_row(client: ClientSummary, states: Iterable[SessionState], result: Result) -> list[str]:
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
    return str(number) if age is None else f"{number}, {duration(age)}"


def _finding(finding: Finding, result: Result, paint: Paint) -> Iterator[str]:
    advice = advice_of(finding, result.sessions_of(finding.key.client))
    severity = paint(finding.severity.upper(), SEVERITY_COLOURS[finding.severity])
    yield f"{severity}  {client_name(finding.key.client)}: {finding_text(finding, at=result.at)}"
    for session in finding.sessions[:_MAX_SESSIONS]:
        yield f"  {_session(session)}"
    if len(finding.sessions) > _MAX_SESSIONS:
        yield f"  and {len(finding.sessions) - _MAX_SESSIONS} more"
    for heading, paragraphs in (("likely cause", (advice.cause,)), ("what to do", advice.steps)):
        yield f"  {paint(heading, Colour.BOLD)}"
        for paragraph in paragraphs:
            yield from folded(printable(paragraph), sys.stdout, indent="    ")
    if advice.terminate:
        yield f"  {paint('to end them', Colour.BOLD)}"
        yield from (f"    {statement}" for statement in advice.terminate)
    yield f"  {paint('read on', Colour.BOLD)}  {advice.runbook}"


def _session(session: Session) -> str:
    since = "" if session.state_change is None else f" since {moment(session.state_change)}"
    statement = f": {session.statement.text}" if session.statement.text else ""
    return printable(
        f"pid {session.id.pid} from {session.client_addr or 'a local socket'}, {session.state}{since}{statement}"
    )


def _young(young: Young, hold_limit: float) -> str:
    limit = duration_text(hold_limit)
    return (
        f"Too young to judge: {client_name(young.client)} has {counted(young.sessions, 'session')} idle in "
        f"transaction, up to {duration(young.age)}, and the hold limit is {limit}. --for {limit} waits it out."
    )


def _conclusion(result: Result, fail_on: Severity, hold_limit: float, paint: Paint) -> Iterator[str]:
    failure, summary = result.state.failure, result.state.last_summary
    if failure is not None:
        yield paint(f"It cannot be seen: {failure_text(failure)}", Colour.RED)
        if failure.reason in FAILURE_ADVICE:
            yield FAILURE_ADVICE[failure.reason]
        return
    if result.hidden and summary is not None:
        yield paint(
            f"{counted(result.hidden, 'session')} hidden from our role: {grant_statement(summary.snapshot.own_user)}",
            Colour.RED,
        )
        return
    if result.findings and result.findings[0].severity is Severity.NOTICE and result.watched < hold_limit:
        yield (
            "A notice is evidence: so short a time hardly tells a leak from work that will end. "
            f"--for {duration_text(2 * hold_limit)} tells more."
        )
    failing = sum(finding.severity.rank >= fail_on.rank for finding in result.findings)
    if failing:
        yield paint(f"{counted(failing, 'finding')} of {fail_on} or above.", Colour.RED)
    else:
        yield paint(f"Nothing of {fail_on} or above.", Colour.GREEN)
