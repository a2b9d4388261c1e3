"""`pgwatch-sessions record`: polls on schedule, and writes each poll into a file."""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgwatch_sessions.commands.command import (
    CONNECTION,
    EXIT_OK,
    EXIT_UNSEEN,
    Command,
    CommandError,
    load_settings,
    positive_count,
)
from pgwatch_sessions.commands.wiring import connections_of
from pgwatch_sessions.core.model import Failure
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.recording import RecordingFile, encode_poll
from pgwatch_sessions.shutdown import ended_by_signals
from pgwatch_sessions.terminal import Progress, bar
from pgwatch_sessions.wording.amounts import counted, duration
from pgwatch_sessions.wording.failures import failure_text
from pgwatch_sessions.wording.labels import printable


@dataclass(slots=True, kw_only=True)
class _Tally:
    """The number of polls recorded so far."""

    polls: int = 0
    failed: int = 0


def _record(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    path: Path = options.out
    tally = _Tally()
    try:
        with RecordingFile(path, overwrite=options.force) as file, Progress(sys.stderr) as progress:
            asyncio.run(
                _record_until_ended(
                    _Recording(file, connections_of(settings), tally, progress, interval=settings.interval),
                    count=options.count,
                )
            )
    except FileExistsError:
        raise CommandError(f"{path}: the file exists; overwrite it with --force") from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from None
    failed = f", {tally.failed} of them failed" if tally.failed else ""
    sys.stderr.write(f"pgwatch-sessions: recorded {counted(tally.polls, 'poll')}{failed} to {path}\n")
    return EXIT_UNSEEN if tally.polls and tally.failed == tally.polls else EXIT_OK


class _Recording:
    """Polls servers on schedule, and writes the polls into one file."""

    def __init__(
        self,
        file: RecordingFile,
        connections: Mapping[str, HeldConnection],
        tally: _Tally,
        progress: Progress,
        *,
        interval: float,
    ) -> None:
        """Record into the file; `interval` is the time between polls in seconds."""
        self._file = file
        self._connections = connections
        self._tally = tally
        self._progress = progress
        self._interval = interval
        self._failing: dict[str, Failure] = {}

    async def poll(self, count: int | None) -> None:
        """Poll each server `count` times, or without end if it is None."""
        begun = time.monotonic()
        done = 0
        while count is None or done < count:
            await asyncio.sleep(begun + done * self._interval - time.monotonic())
            outcomes = await asyncio.gather(*(connection.poll() for connection in self._connections.values()))
            for server, outcome in zip(self._connections, outcomes, strict=True):
                self._file.write(encode_poll(outcome, server=server, at=time.time()))
                self._tally.polls += 1
                self._tally.failed += isinstance(outcome, Failure)
                self._report_failure(server, outcome if isinstance(outcome, Failure) else None)
            done += 1
            share = "" if count is None else f"{bar(done / count)}  "
            elapsed = duration(time.monotonic() - begun)
            self._progress.show(f"{share}{counted(self._tally.polls, 'poll')}, {self._file.size:,} B, {elapsed}")

    async def close(self) -> None:
        """Close the connections, which frees their slots."""
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))

    def _report_failure(self, server: str, failure: Failure | None) -> None:
        """Report a failure once, until a poll succeeds or fails for another reason."""
        if failure is None:
            self._failing.pop(server, None)
        elif self._failing.get(server) != failure:
            self._failing[server] = failure
            self._progress.clear()
            sys.stderr.write(
                f"pgwatch-sessions: {printable(server)}: cannot poll this server: {failure_text(failure)}\n"
            )


async def _record_until_ended(recording: _Recording, *, count: int | None) -> None:
    """Record until `count` polls were taken, or until SIGTERM or SIGINT."""
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with ended_by_signals(end):
        polling = asyncio.create_task(recording.poll(count))
        try:
            await asyncio.wait({polling, end}, return_when=asyncio.FIRST_COMPLETED)
            polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await polling
        finally:
            await recording.close()


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="file to write; gzip if its name ends in .gz"
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=positive_count,
        help="number of polls of each server. Default: no limit.",
    )
    parser.add_argument("--force", action="store_true", help="overwrite the file if it exists")


RECORD = Command(
    name="record",
    purpose="poll on schedule, and write each poll into a file for replay",
    description="""\
Polls the servers on schedule, and writes one line per poll, failed polls included. Literals in statements are
redacted before they are written. Ctrl-C or SIGTERM ends the recording. `pgwatch-sessions replay` reads the file.""",
    settings=(*CONNECTION, "interval", "statements"),
    add_options=_add_options,
    run=_record,
    epilog="""\
examples:
  pgwatch-sessions record --out night.jsonl.gz --dsn postgresql://pgwatch_sessions@db/postgres
  pgwatch-sessions record --out minute.jsonl --interval 1s --count 60

exit codes:
  0  recorded, also if Ctrl-C or SIGTERM ended it
  2  wrong usage or configuration, or a file that exists or cannot be written
  3  every poll failed; the file has the failures
""",
)
