"""The program's entry: runs a command, handles a closed output and Ctrl-C, and exits with the command's code."""

import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that the arguments name, and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["run"]:  # before the long imports, because SIGHUP would end the process; see hangup.py
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names on a server may have characters that the terminal cannot show
    try:
        try:
            code = _run(given)
        finally:
            if sys.stdout is not None:  # None if the parent process closed it
                sys.stdout.flush()  # raises BrokenPipeError here, and not when Python ends, which would print it
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        code = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    from pgwatch_sessions.commands import check_health  # noqa: PLC0415  # takes 50 ms, in which SIGHUP is not blocked

    if arguments[:1] == [check_health.NAME]:
        return check_health.main(arguments[1:])
    from pgwatch_sessions.command_line import run  # noqa: PLC0415  # takes a second, which a health check saves

    return run(arguments)
