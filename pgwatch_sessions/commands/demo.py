"""`pgwatch-sessions demo`: see it work."""

import argparse

from pgwatch_sessions.commands.command import Command


def _demo(options: argparse.Namespace) -> int:
    from pgwatch_sessions.demo.walkthrough import run_demo  # noqa: PLC0415  # needs the extra that no other command does

    return run_demo(once=options.once)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="end by itself after about 30 s")


DEMO = Command(
    name="demo",
    purpose="see it work: an embedded PostgreSQL and a small service that leaks",
    description="""\
Starts a PostgreSQL of its own and a small FastAPI service that leaks on it, watches them, and leaves nothing
behind. Needs the extra: pip install 'pgwatch-sessions[demo]'.""",
    add_options=_add_options,
    obey=_demo,
    epilog="""\
exit codes:
  0  ended as asked
  1  a fault of the program; the traceback says more
  2  wrong usage, or the embedded PostgreSQL does not start
""",
)
