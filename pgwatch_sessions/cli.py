"""The process around a command: its output, its interruptions and its exit code."""

import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pgwatch_sessions.commands import check_health


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that the arguments name, and exit with its code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names on a server may have letters that the terminal lacks
    try:
        try:
            code = _obey(sys.argv[1:] if arguments is None else arguments)
        finally:
            if sys.stdout is not None:  # it is, where whoever started us has closed it
                sys.stdout.flush()  # whether anybody reads shows here; at its own end, Python would complain
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what could not be written now never can be
        code = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


def _obey(arguments: Sequence[str]) -> int:
    if arguments[:1] == [check_health.NAME]:
        return check_health.main(arguments[1:])
    from pgwatch_sessions.command_line import obey  # noqa: PLC0415  # a second of loading that a health check spares

    return obey(arguments)
