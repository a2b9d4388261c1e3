"""`python -m tests.bench [NAME ...]`: measure what things cost. The exit code is not 0 only if a bench fails to run."""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from pgwatch_sessions.demo.postgres import packaged
from tests.bench import core, end, memory, poll, pools, rules, scrape, spill, tags

#: Each yields blocks of text as it proceeds.
BENCHES: Mapping[str, Callable[[], Iterator[str]]] = {
    "poll": poll.bench,
    "spill": spill.bench,
    "scrape": scrape.bench,
    "memory": memory.bench,
    "core": core.bench,
    "rules": rules.bench,
    "end": end.bench,
    "pools": pools.bench,
    "tags": tags.bench,
}


def main() -> None:
    """Run the benches named by the arguments, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Print what polls, scrapes, rules and checkouts cost."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(BENCHES)}; default: all")
    names = parser.parse_args().names or list(BENCHES)
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"unknown bench: {', '.join(unknown)}")
    _show(_machine())
    for name in names:
        begun = time.monotonic()
        for block in BENCHES[name]():
            _show(block)
        _show(f"({name}: {time.monotonic() - begun:.0f} s)\n")


def _show(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _machine() -> str:
    """Describe the machine. Other load during the run makes the numbers worse."""
    postgres = subprocess.run([packaged(18) / "postgres", "--version"], capture_output=True, text=True, check=True)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return (
        f"{cores} cores ({platform.machine()}), load {load:.1f} before, Linux {platform.release()}\n"
        f"{platform.python_implementation()} {platform.python_version()}, {postgres.stdout.strip()}\n"
    )


if __name__ == "__main__":
    main()
