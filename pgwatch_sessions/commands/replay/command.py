"""The command: its options, the file, and what is written where."""

import argparse
import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from pgwatch_sessions.commands.command import (
    EXIT_FOUND,
    EXIT_OK,
    EXIT_USAGE,
    JUDGEMENT,
    Command,
    CommandError,
    load_settings,
)
from pgwatch_sessions.commands.replay.ledger import PAGING, Ledger
from pgwatch_sessions.commands.replay.steps import Step, happening_fields, replay
from pgwatch_sessions.commands.replay.story import Story
from pgwatch_sessions.commands.replay.summary import summary_lines
from pgwatch_sessions.commands.wiring import parse_of
from pgwatch_sessions.recording import BadLine, read_polls
from pgwatch_sessions.recording.times import text_of
from pgwatch_sessions.settings.model import Settings
from pgwatch_sessions.terminal import Progress, bar, paint_for
from pgwatch_sessions.wording.amounts import counted

STDIN = "-"
#: Smaller files are read before anybody wonders.
_LONG_FILE_BYTES = 2**18
#: Lines that say nothing usable and are named one by one; in a file that is no recording, all are such.
_NAMED_BAD_LINES = 10


def _replay(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    try:
        with _opened(options.file) as source, Progress(sys.stderr) as progress:
            return _tell(source, settings, options, progress)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{options.file}: {error.strerror or error}") from None


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BufferedReader]:
    if file != STDIN:
        with Path(file).open("rb") as source:
            yield source
    elif sys.stdin is None:
        raise CommandError("standard input is closed")
    else:
        with os.fdopen(sys.stdin.fileno(), "rb", closefd=False) as source:
            yield source


def _tell(source: BufferedReader, settings: Settings, options: argparse.Namespace, progress: Progress) -> int:
    """Replay and write; return the exit code."""
    ledger, bad_lines = Ledger(), 0
    story, paint = _story(options.format), paint_for(sys.stdout)
    share_read = _share_read(source)
    for step in replay(read_polls(source, parse=parse_of(settings)), settings.policy):
        if isinstance(step, BadLine):
            bad_lines += 1
            if bad_lines <= _NAMED_BAD_LINES:
                progress.clear()
                sys.stderr.write(f"pgwatch-sessions: error: {options.file}: line {step.number}: {step.reason}\n")
            continue
        ledger.note(step)
        for line in story(step):
            progress.clear()
            sys.stdout.write(f"{line}\n")
        if share_read is not None:
            progress.show(bar(share_read()))
    progress.clear()
    if bad_lines > _NAMED_BAD_LINES:
        more = counted(bad_lines - _NAMED_BAD_LINES, "more line")
        sys.stderr.write(f"pgwatch-sessions: error: {options.file}: {more} that say nothing usable\n")
    if not ledger.courses:
        raise CommandError(f"{options.file}: there is no poll in it")
    if options.format == "text":
        sys.stdout.writelines(f"{line}\n" for line in summary_lines(ledger, paint))
    if bad_lines:
        return EXIT_USAGE
    return EXIT_FOUND if any(case.worst.rank >= PAGING.rank for case in ledger.cases()) else EXIT_OK


def _story(form: str) -> Callable[[Step], Iterator[str]]:
    return _documents if form == "json" else Story(paint_for(sys.stdout)).lines


def _documents(step: Step) -> Iterator[str]:
    for happening in step.happenings:
        name, fields = happening_fields(happening)
        yield json.dumps({"at": text_of(step.at), "event": name, "server": step.state.server, **fields})


def _share_read(source: BufferedReader) -> Callable[[], float] | None:
    """Return a function that says how much of a long file was read; None where it has no length."""
    status = os.fstat(source.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size < _LONG_FILE_BYTES:
        return None
    return lambda: source.tell() / status.st_size


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a recording, plain or gzip; - reads standard input")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="a story for people, or one event a line as JSON"
    )


REPLAY = Command(
    name="replay",
    purpose="run the same judgement over a recording: what would it have said, and when",
    description="""\
Runs the same judgement over a recording, by the recording's clock: what would the daemon have said, and when?
Would it have paged last night, and with which settings?""",
    settings=JUDGEMENT,
    add_options=_add_options,
    obey=_replay,
    epilog="""\
examples:
  pgwatch-sessions replay night.jsonl.gz
  pgwatch-sessions replay night.jsonl.gz --hold-limit 5m --growth-window 30m
  pgwatch-sessions replay --format json night.jsonl.gz | jq 'select(.event == "leak_opened")'
  for file in recordings/*-shop-db.jsonl.gz; do zcat "$file"; done | pgwatch-sessions replay -

exit codes:
  0  nothing of severity warning or above
  1  something of severity warning or above
  2  wrong usage or configuration, a file that cannot be read, or lines in it that say nothing usable
     (they are left out, the first ten of them named on standard error)
""",
)
