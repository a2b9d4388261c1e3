"""`python -m pgwatch_sessions.pools PID`: print the pools of a running process, and who has their connections."""

import argparse
import json
import os
import sys
import time
from typing import Any

from pgwatch_sessions.pools.debug_signal import announcement, answer, started
from pgwatch_sessions.pools.report import lines

#: Seconds in which a process has to answer. It cannot while an extension module keeps the interpreter busy.
_DEADLINE = 5.0


def main() -> int:
    """Return 0, or 1 with an error line if the process does not answer."""
    parser = argparse.ArgumentParser(
        prog="python -m pgwatch_sessions.pools",
        description="Print the connection pools of a running process, and which lines of code have their connections. "
        "The process must have called pgwatch_sessions.pools.debug_signal.report_on_signal().",
    )
    parser.add_argument("pid", type=int, metavar="PID", help="the process, of the same user")
    parser.add_argument("--older-than", type=float, default=0.0, metavar="SECONDS", help="only borrowers this old")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    try:
        document = _ask(arguments.pid)
    except (OSError, RuntimeError) as error:
        sys.stderr.write(f"python -m pgwatch_sessions.pools: error: {error}\n")
        return 1
    for pool in document["pools"]:
        pool["borrowed"] = [each for each in pool["borrowed"] if each["age_seconds"] >= arguments.older_than]
    if arguments.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(document))
    return 0


def _ask(pid: int) -> dict[str, Any]:
    """Send the signal, and return the process's answer."""
    announced = announcement(pid)
    if not announced.exists():
        raise RuntimeError(
            f"process {pid} of this user does not answer: "
            "it must call pgwatch_sessions.pools.debug_signal.report_on_signal()"
        )
    known = json.loads(announced.read_text(encoding="utf-8"))
    if known["started"] != started(pid):
        announced.unlink(missing_ok=True)
        raise RuntimeError(f"process {pid} has ended")
    path = answer(pid)
    path.unlink(missing_ok=True)
    os.kill(pid, known["signal"])
    deadline = time.monotonic() + _DEADLINE
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"process {pid} has not answered within {_DEADLINE:.0f} s")
        time.sleep(0.02)
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink(missing_ok=True)
    return document


if __name__ == "__main__":
    sys.exit(main())
