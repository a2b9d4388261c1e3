"""The command: its options, its polls, and its exit code."""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Iterator, Sequence

from pgwatch_sessions.commands.check.document import document_of
from pgwatch_sessions.commands.check.polling import poll_at_all
from pgwatch_sessions.commands.check.result import Narrowing, Result, result_of
from pgwatch_sessions.commands.check.text import text_of_results
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
_PAUSE = 2.0


def _check(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    polls = math.ceil(options.for_seconds / options.pause) + 1 if options.for_seconds else options.polls
    narrowing = Narrowing(application=options.application, database=options.database)
    with Progress(sys.stderr) as progress:
        states = asyncio.run(_polled(settings, polls, options.pause, progress))
    results = [result_of(state, narrowing, hold_limit=settings.hold_limit) for state in states]
    fail_on = Severity(options.fail_on)
    code = max(result.exit_code(fail_on) for result in results)
    sys.stdout.writelines(f"{line}\n" for line in _lines(results, options.format, fail_on, code, settings.hold_limit))
    return code


async def _polled(settings: Settings, polls: int, pause: float, progress: Progress) -> Sequence[ServerState]:
    return await poll_at_all(
        connections_of(settings),
        polls=polls,
        pause=pause,
        policy=settings.policy,
        polled=lambda done: progress.show(f"{bar(done / polls)}  poll {done} of {polls}"),
    )


def _lines(results: Sequence[Result], form: str, fail_on: Severity, code: int, hold_limit: float) -> Iterator[str]:
    if form == "json":
        yield json.dumps(document_of(results, fail_on=fail_on, code=code), indent=2)
    else:
        yield from text_of_results(results, fail_on=fail_on, hold_limit=hold_limit, paint=paint_for(sys.stdout))


def _add_options(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--polls", metavar="N", type=positive_count, default=_POLLS, help=f"how often to poll. Default: {_POLLS}."
    )
    length.add_argument(
        "--for",
        dest="for_seconds",
        metavar="DURATION",
        type=positive_duration,
        help="poll until so much time has passed, such as the hold limit and a little more",
    )
    parser.add_argument(
        "--interval",
        dest="pause",
        metavar="DURATION",
        type=positive_duration,
        default=_PAUSE,
        help=f"time between polls. Default: {_PAUSE:.0f}s.",
    )
    parser.add_argument("--application", metavar="PATTERN", help="judge clients of this application_name only")
    parser.add_argument("--database", metavar="PATTERN", help="judge clients of this database only")
    parser.add_argument(
        "--fail-on",
        choices=[str(severity) for severity in Severity],
        default=str(Severity.NOTICE),
        help="least severity of a finding that is exit code 1. Default: notice.",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="a report for people, or one JSON document"
    )


CHECK = Command(
    name="check",
    purpose="poll a few times, report, and exit with a code: a gate for CI, a cron job, a person",
    description="""\
Polls a few times and reports who has which sessions, what is held or leaking, and what to do about it.

After a load test, when nothing should be going on any more, it is a gate: one session left idle in a transaction
for longer than the hold limit is a failure. PATTERN is a shell pattern such as 'orders-*'.""",
    settings=(*CONNECTION, *JUDGEMENT),
    add_options=_add_options,
    obey=_check,
    epilog="""\
examples:
  pgwatch-sessions check --dsn postgresql://pgwatch_sessions@db/postgres
  pgwatch-sessions check --hold-limit 5s --for 10s --application 'orders-*'
  pgwatch-sessions check --fail-on critical --format json | jq '.servers[].findings'

exit codes:
  0  nothing found
  1  a finding of at least --fail-on
  2  wrong usage or configuration
  3  a server that could not be seen: unreachable, refused, or states of its sessions hidden from our role
     (of several servers the highest code counts)
""",
)
