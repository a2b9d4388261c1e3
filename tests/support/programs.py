"""The command `pgwatch-sessions` as users start it, in an environment that says only what the test says."""

import os
import subprocess
import sys
from collections.abc import Mapping

#: Both entries, the script and the module, are the same program; a test of the command line shows that.
PROGRAM = (sys.executable, "-m", "pgwatch_sessions")
#: Variables of other programs that name a server.
OTHER_PROGRAMS = ("DATABASE_URL", "DATA_SOURCE_NAME")
_PREFIX = "PGWATCH_SESSIONS_"


def environment(**settings: str) -> Mapping[str, str]:
    """Return our own environment without PostgreSQL's and the program's variables, and with these settings."""
    others = ("PG", "NO_COLOR", *OTHER_PROGRAMS)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return inherited | {_PREFIX + name: value for name, value in settings.items()}


def finished(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=environment() if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
