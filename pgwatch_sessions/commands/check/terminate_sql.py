"""The `terminate-sql` command: the findings of a check, as SQL that terminates their sessions."""

import argparse
import asyncio
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from pgwatch_sessions.commands.check.client_filter import ClientFilter, refuse_missing
from pgwatch_sessions.commands.check.polling import poll_servers
from pgwatch_sessions.commands.check.result import CheckResult, result_of
from pgwatch_sessions.commands.command import (
    CONNECTION,
    EXIT_OK,
    EXIT_UNSEEN,
    JUDGEMENT,
    Command,
    load_settings,
    positive_duration,
)
from pgwatch_sessions.commands.wiring import connections_of
from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.settings.model import Settings
from pgwatch_sessions.wording.failures import FAILURE_ADVICE, failure_text
from pgwatch_sessions.wording.labels import printable
from pgwatch_sessions.wording.sentences import finding_sentence, hidden_text
from pgwatch_sessions.wording.termination import PRIVILEGE, termination_sql

#: As `check` does by default.
_POLLS = 3
_INTERVAL = 2.0


def _terminate_sql(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    clients = ClientFilter(application=options.application, database=options.database)
    polls = math.ceil(options.for_seconds / _INTERVAL) + 1 if options.for_seconds else _POLLS
    states = asyncio.run(_poll(settings, polls))
    results = [result_of(state, clients) for state in states]
    chosen = [(result, finding) for result in results for finding in _at_site(result.findings, options.site)]
    for result in results:
        sys.stderr.writelines(f"pgwatch-sessions: {printable(line)}\n" for line in _not_seen(result))
    if any(result.state.failure is not None or result.hidden for result in results):
        code = EXIT_UNSEEN
    else:
        refuse_missing(clients, states, remedy="correct the pattern")
        code = EXIT_OK
    lines = _lines(chosen, several_servers=len(results) > 1)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return code


async def _poll(settings: Settings, polls: int) -> Sequence[ServerState]:
    return await poll_servers(
        connections_of(settings), polls=polls, interval=_INTERVAL, policy=settings.policy, on_poll=lambda _: None
    )


def _at_site(findings: Iterable[Finding], site: str | None) -> Iterator[Finding]:
    for finding in findings:
        if site is None or fnmatchcase(finding.site, site):
            yield finding


def _not_seen(result: CheckResult) -> Iterator[str]:
    """Say what this server does not show. It goes to the standard error, because psql would not show a comment."""
    failure = result.state.failure
    if failure is not None:
        yield f"cannot poll {result.state.server}: {failure_text(failure)}"
        if failure.reason in FAILURE_ADVICE:
            yield FAILURE_ADVICE[failure.reason]
    elif result.hidden:
        yield f"{result.state.server}: {hidden_text(result.hidden, result.session_count)}"


def _lines(chosen: Sequence[tuple[CheckResult, Finding]], *, several_servers: bool) -> Iterator[str]:
    """Yield SQL with comments. `printable` keeps a client's name from ending its comment."""
    statements = [(result, finding, termination_sql(finding.sessions)) for result, finding in chosen]
    if not any(sql for _, _, sql in statements):
        yield "-- No session that could be terminated was seen."
        return
    yield f"-- {PRIVILEGE}".replace("`", "")
    for result, finding, sql in statements:
        if sql is not None:
            server = f"{result.state.server}: " if several_servers else ""
            text = finding_sentence(finding, at=result.polled_at)
            yield ""
            yield f"-- {printable(f'{server}{finding.severity.upper()} {text}')}"
            yield sql


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--application", metavar="PATTERN", help="only clients with this application_name")
    parser.add_argument("--database", metavar="PATTERN", help="only clients of this database")
    parser.add_argument("--site", metavar="PATTERN", help="only findings at this site, for example '/orders/*'")
    parser.add_argument(
        "--for",
        dest="for_seconds",
        metavar="DURATION",
        type=positive_duration,
        help=f"poll for this long. Default: {_POLLS} polls, {_INTERVAL:.0f} s apart.",
    )


TERMINATE_SQL = Command(
    name="terminate-sql",
    purpose="print SQL that terminates the sessions of the findings; it never runs it",
    description="""\
Polls the servers as check does, and prints one statement for each finding. The statement terminates exactly the
sessions that are held now: it compares pid and backend_start, so a later session with the same pid is spared.

It only prints. Read the statements, then run those you want in psql. Their role needs pg_signal_backend, or is the
role of the sessions. PATTERN is a shell pattern such as 'orders-*'.""",
    settings=(*CONNECTION, *JUDGEMENT),
    add_options=_add_options,
    run=_terminate_sql,
    epilog="""\
examples:
  pgwatch-sessions terminate-sql --application orders-api
  pgwatch-sessions terminate-sql --application 'orders-*' --site '/orders/*' > terminate.sql
  pgwatch-sessions terminate-sql --application orders-api | psql "$DSN"

exit codes:
  0  the statements were printed; if no session is held, a comment
  2  wrong usage or configuration, or no client matches
  3  a server cannot be polled, or hides the state of sessions from the monitoring role
""",
)
