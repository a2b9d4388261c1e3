"""The `check` command: its options, and what it does with them."""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Iterator, Sequence

from pgwatch_sessions.commands.check.client_filter import ClientFilter, refuse_missing
from pgwatch_sessions.commands.check.document import document_of
from pgwatch_sessions.commands.check.following import Following, follow_servers
from pgwatch_sessions.commands.check.polling import poll_servers
from pgwatch_sessions.commands.check.result import CheckResult, result_of
from pgwatch_sessions.commands.check.text import report_lines
from pgwatch_sessions.commands.command import (
    CONNECTION,
    JUDGEMENT,
    Command,
    load_settings,
    positive_count,
    positive_duration,
)
from pgwatch_sessions.commands.wiring import connections_of
from pgwatch_sessions.core.findings import Severity
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.settings.model import Settings
from pgwatch_sessions.terminal import Progress, bar, paint_for

_POLLS = 3
_INTERVAL = 2.0
_MISSING = "correct the pattern, or add --allow-missing if the client may have no session yet"


def _check(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    polls = math.ceil(options.for_seconds / options.poll_interval) + 1 if options.for_seconds else options.polls
    clients = ClientFilter(application=options.application, database=options.database)
    fail_on = Severity(options.fail_on)
    if options.follow:
        following = Following(sys.stdout, clients, as_json=options.format == "json")
        states = asyncio.run(_follow(settings, polls, options.poll_interval, following))
        return max(result_of(state, clients).exit_code(fail_on) for state in states)
    with Progress(sys.stderr) as progress:
        states = asyncio.run(_poll(settings, polls or _POLLS, options.poll_interval, progress))
    if not options.allow_missing:
        refuse_missing(clients, states, remedy=_MISSING)
    results = [result_of(state, clients) for state in states]
    code = max(result.exit_code(fail_on) for result in results)
    lines = _lines(results, options.format, fail_on=fail_on, code=code, hold_limit=settings.hold_limit)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return code


async def _poll(settings: Settings, polls: int, interval: float, progress: Progress) -> Sequence[ServerState]:
    return await poll_servers(
        connections_of(settings),
        polls=polls,
        interval=interval,
        policy=settings.policy,
        on_poll=lambda number: progress.show(f"{bar(number / polls)}  poll {number} of {polls}"),
    )


async def _follow(
    settings: Settings, polls: int | None, interval: float, following: Following
) -> Sequence[ServerState]:
    return await follow_servers(
        connections_of(settings), polls=polls, interval=interval, policy=settings.policy, following=following
    )


def _lines(
    results: Sequence[CheckResult], output_format: str, *, fail_on: Severity, code: int, hold_limit: float
) -> Iterator[str]:
    if output_format == "json":
        yield json.dumps(document_of(results, fail_on=fail_on, code=code), indent=2)
    else:
        yield from report_lines(results, fail_on=fail_on, hold_limit=hold_limit, paint=paint_for(sys.stdout))


def _add_options(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--polls",
        metavar="N",
        type=positive_count,
        help=f"number of polls. Default: {_POLLS}, or with --follow no limit.",
    )
    length.add_argument(
        "--for",
        dest="for_seconds",
        metavar="DURATION",
        type=positive_duration,
        help="poll for this long instead, for example a little longer than the hold limit",
    )
    parser.add_argument(
        "--interval",
        dest="poll_interval",
        metavar="DURATION",
        type=positive_duration,
        default=_INTERVAL,
        help=f"time between polls. Default: {_INTERVAL:.0f}s.",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="instead of a report, print one line for each event as it comes, until Ctrl-C, or the end of --for",
    )
    parser.add_argument("--application", metavar="PATTERN", help="check only clients with this application_name")
    parser.add_argument("--database", metavar="PATTERN", help="check only clients of this database")
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="pass if no client matches the patterns, for gates that may run before any traffic",
    )
    parser.add_argument(
        "--fail-on",
        choices=[str(severity) for severity in Severity],
        default=str(Severity.NOTICE),
        help="exit with 1 for findings of this severity or worse. Default: notice.",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="text (the default), or one JSON document; with --follow, one JSON object for each event",
    )


CHECK = Command(
    name="check",
    purpose="poll a few times, report findings, and exit with a code: for CI, cron jobs and people",
    description="""\
Polls the servers a few times. Reports the sessions of each client, which of them are held or leaking, the likely
cause, and what to do.

As a gate after a load test, when the application has nothing left to do, it fails if a session has been idle in
transaction for longer than the hold limit. PATTERN is a shell pattern such as 'orders-*'.""",
    settings=(*CONNECTION, *JUDGEMENT),
    add_options=_add_options,
    run=_check,
    epilog="""\
examples:
  pgwatch-sessions check --dsn postgresql://pgwatch_sessions@db/postgres
  pgwatch-sessions check --hold-limit 5s --for 10s --application 'orders-*'
  pgwatch-sessions check --follow | tee events.log
  pgwatch-sessions check --fail-on critical --format json | jq '.servers[].findings'

exit codes:
  0  no finding of the --fail-on severity or worse
  1  a finding of the --fail-on severity or worse
  2  wrong usage or configuration, or no client matches --application and --database
  3  a server cannot be polled, or hides the state of sessions from the monitoring role
     (with several servers, the highest code)
""",
)
