"""The `replay` command: its options, its input and its output."""

import argparse
import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from io import BufferedReader

from pgwatch_sessions.commands.command import (
    EXIT_FOUND,
    EXIT_OK,
    EXIT_USAGE,
    JUDGEMENT,
    Command,
    CommandError,
    load_settings,
)
from pgwatch_sessions.commands.replay.polls import ReplayedPoll, replay, replay_event_fields, replay_line
from pgwatch_sessions.commands.replay.report import PAGING, ReplayReport
from pgwatch_sessions.commands.replay.summary import summary_lines
from pgwatch_sessions.commands.replay.timeline import Timeline
from pgwatch_sessions.commands.wiring import parse_of
from pgwatch_sessions.recording import BadLine, read_polls
from pgwatch_sessions.recording.times import text_of
from pgwatch_sessions.settings.model import Settings
from pgwatch_sessions.terminal import Progress, bar, paint_for
from pgwatch_sessions.wording.amounts import counted

STDIN = "-"
#: Progress is shown for files of at least this size. Smaller ones take less than a second.
_LONG_FILE_BYTES = 2**18
#: Bad lines that are reported one by one. The rest are counted: in a file that is no recording, every line is bad.
_MAX_REPORTED_LINES = 10


def _replay(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    try:
        with _opened(options.file) as source, Progress(sys.stderr) as progress:
            return _replay_file(source, settings, options, progress)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{options.file}: {error.strerror or error}") from None


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BufferedReader]:
    if file != STDIN:
        # To open a FIFO would wait for a writer; O_NONBLOCK changes nothing for a file.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise CommandError(
                    f"{file}: not a regular file; to read a pipe, give - and redirect it: `replay - <FILE`"
                )
            yield source
    elif sys.stdin is None:
        raise CommandError("standard input is closed")
    else:
        with os.fdopen(sys.stdin.fileno(), "rb", closefd=False) as source:
            yield source


def _replay_file(source: BufferedReader, settings: Settings, options: argparse.Namespace, progress: Progress) -> int:
    """Judge and write poll by poll, then the summary; return the exit code."""
    report, bad_lines = ReplayReport(), 0
    paint = paint_for(sys.stdout)
    lines_of = _json_lines if options.format == "json" else Timeline(paint).lines
    share_read = _share_read(source)
    for poll in replay(read_polls(source, parse=parse_of(settings)), settings.policy):
        if isinstance(poll, BadLine):
            bad_lines += 1
            if bad_lines <= _MAX_REPORTED_LINES:
                progress.clear()
                sys.stderr.write(f"pgwatch-sessions: error: {options.file}: line {poll.number}: {poll.reason}\n")
            continue
        report.add(poll)
        for line in lines_of(poll):
            progress.clear()
            sys.stdout.write(f"{line}\n")
        if share_read is not None:
            progress.show(bar(share_read()))
    progress.clear()
    if bad_lines > _MAX_REPORTED_LINES:
        more = counted(bad_lines - _MAX_REPORTED_LINES, "more line")
        sys.stderr.write(f"pgwatch-sessions: error: {options.file}: {more} cannot be read\n")
    if not report.servers:
        raise CommandError(f"{options.file}: the file has no poll; is it a recording?")
    if options.format == "text":
        sys.stdout.writelines(f"{line}\n" for line in summary_lines(report, paint))
    if bad_lines:
        return EXIT_USAGE
    return EXIT_FOUND if any(each.worst.rank >= PAGING.rank for each in report.findings()) else EXIT_OK


def _json_lines(poll: ReplayedPoll) -> Iterator[str]:
    for event in poll.events:
        name, fields = replay_event_fields(event)
        message = replay_line(event, at=poll.at).text
        yield json.dumps(
            {"at": text_of(poll.at), "event": name, "server": poll.state.server, "message": message, **fields}
        )


def _share_read(source: BufferedReader) -> Callable[[], float] | None:
    """Return a function that returns which part of a long file was read, from 0 to 1; None for other input."""
    status = os.fstat(source.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size < _LONG_FILE_BYTES:
        return None
    return lambda: source.tell() / status.st_size


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a recording, plain or gzip; - for standard input")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="text (the default), or one JSON object per event"
    )


REPLAY = Command(
    name="replay",
    purpose="judge a recording as the daemon would have, by the recording's clock",
    description="""\
Judges a recording as the daemon would have, by the recording's clock. It shows what would have been reported and
when, whether anybody would have been paged last night, and with which settings.""",
    settings=JUDGEMENT,
    add_options=_add_options,
    run=_replay,
    epilog="""\
examples:
  pgwatch-sessions replay night.jsonl.gz
  pgwatch-sessions replay night.jsonl.gz --hold-limit 5m --growth-window 30m
  pgwatch-sessions replay --format json night.jsonl.gz | jq 'select(.event == "leak_opened")'
  for file in recordings/*-shop-db.jsonl.gz; do zcat "$file"; done | pgwatch-sessions replay -

exit codes:
  0  no finding of severity warning or worse
  1  a finding of severity warning or worse
  2  wrong usage or configuration, a file that cannot be read, or lines in it that cannot be read
     (they are left out; the first ten are reported on standard error)
""",
)
