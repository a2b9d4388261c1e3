"""The document: every claim with its experiment, what was measured, what the daemon said, and the verdict."""

import os
import platform
import subprocess
import textwrap
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from pgwatch_sessions.demo.postgres import packaged
from tests.claims.claim import Claim, Outcome
from tests.claims.replayed import POLICY

_COLUMNS = 120
_HEAD = """\
# Claims about connection leaks, tried

Three write-ups on connection leaks make claims that are often repeated: one on FastAPI leaks, one on exhausted pools,
and a change proposed to a FastAPI template. Here each claim is stated in other words, tried on a real PostgreSQL
server, and judged by what was measured. `make claims` does that in about five minutes and writes this page;
`make claims ARGS=unclosed-session` tries one claim and only prints it.

A verdict is computed from the figures. It depends on counts and large ratios, not on milliseconds, because other
programs may use the machine. What a write-up reports of its own service, such as restarts per day, cannot be tried.

The daemon's words come from a recording that `pgwatch-sessions record` made during the experiment, with five polls per
second, judged by the code of `replay`: every finding on a run at its worst. Experiments last seconds, so the hold limit
was {hold:g} s instead of 60 s, and the growth window {growth:g} s instead of 10 minutes.
"""


def document(results: Sequence[tuple[Claim, Outcome]], *, date: str, machine: str) -> str:
    """Return the whole page."""
    blocks = [
        _HEAD.format(hold=POLICY.hold_limit, growth=POLICY.growth_window),
        f"{_wrapped(f'Measured on {date}: {machine}.')}\n",
        _table(
            ("claim", "verdict"), [(f"[{claim.name}](#{claim.name})", outcome.verdict) for claim, outcome in results]
        ),
        *(section(claim, outcome) for claim, outcome in results),
    ]
    return "\n".join(blocks)


def section(claim: Claim, outcome: Outcome) -> str:
    """Return the part of the page on one claim."""
    blocks = [
        f"## {claim.name}\n",
        f"{_wrapped(f'**Claim.** {claim.text}')}\n",
        f"{_wrapped(f'**Experiment.** {claim.experiment}')}\n",
        "**Measured.**\n",
        _table(outcome.header, outcome.rows),
    ]
    if outcome.said:
        blocks += ["**The daemon said.**\n", "".join(_said(outcome))]
    blocks.append(f"{_wrapped(f'**Verdict: {outcome.verdict}.** {outcome.reason}')}\n")
    return "\n".join(blocks)


def machine(*, load_before: float) -> str:
    """Describe the machine, its load, and the versions of what takes part."""
    postgres = subprocess.run([packaged(18) / "postgres", "--version"], capture_output=True, text=True, check=True)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "sqlalchemy", "psycopg", "asyncpg"))
    return (
        f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), load average {load_before:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after, Linux {platform.release()}, {platform.python_implementation()} "
        f"{platform.python_version()}, {postgres.stdout.strip()}, {libraries}"
    )


def _said(outcome: Outcome) -> Iterator[str]:
    for run, lines in outcome.said.items():
        for line in lines:
            yield f"{_wrapped(f'* {run}: {line}', indent='  ')}\n"


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(_cell(value) for value in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(text: str, *, indent: str = "") -> str:
    return textwrap.fill(text, _COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
