"""What the program knows, in words for people."""

import math
from datetime import UTC, datetime

from pgwatch_sessions.commands.terminal import Colour, printable
from pgwatch_sessions.core.findings import Diagnosis, Finding, Kind, Severity
from pgwatch_sessions.core.model import Client, Failure, Reason

#: How the sessions of a finding are.
HOW_HELD = {
    Kind.TRANSACTION_HELD: "idle in transaction",
    Kind.CONNECTION_HELD: "idle and not handed back",
    Kind.ORIGIN_GROWTH: "opened and never used again",
}
#: What to look at, by the reason for which nothing is seen; the others say it themselves.
REMEDIES = {
    Reason.EXHAUSTED: "A daemon that was connected before still sees a full server; from PostgreSQL 16 on, "
    "reserved_connections keeps slots for a role like ours.",
    Reason.AUTHENTICATION: "User and password stand in the DSN, or in PGUSER and PGPASSWORD; --password-file names a "
    "file with the password. The server's pg_hba.conf says who may connect from where.",
    Reason.NETWORK: "Host and port stand in the DSN, or in PGHOST and PGPORT; without them localhost:5432 is meant.",
    Reason.TIMEOUT: "Is it the right host, and does no firewall swallow the packets? --timeout gives a look more time.",
}
COLOURS = {Severity.NOTICE: Colour.BOLD, Severity.WARNING: Colour.YELLOW, Severity.CRITICAL: Colour.RED}

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def moment(seconds: float) -> str:
    """Say when, in UTC; the input is seconds since the epoch."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"


def span(seconds: float) -> str:
    """Say how long, as closely as it matters; clocks that disagree make it none."""
    if seconds < 2 * _MINUTE:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.0f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} d"


def counted(number: int, what: str) -> str:
    """Say how many."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def client_name(client: Client) -> str:
    """Name a client."""
    return printable(f"{client.application} ({client.database}, {client.user})")


def failure_text(failure: Failure) -> str:
    """Say why nothing was seen."""
    return printable(f"{failure.reason}: {failure.detail}" if failure.detail else str(failure.reason))


def finding_text(finding: Finding, *, at: float) -> str:
    """Say what is held where, how fast it grows, and what it costs; `at` is the server's time now."""
    parts = [
        f"{counted(len(finding.sessions), 'session')} {HOW_HELD[finding.key.kind]} at {printable(finding.key.site)}"
    ]
    if finding.sessions:
        held_since = finding.sessions[0].state_change
        parts.append(f"the longest for {span(at - (finding.since if held_since is None else held_since))}")
    if finding.rate_per_minute > 0:
        parts.append(f"{finding.rate_per_minute:.1f} more a minute")
    if not math.isinf(finding.exhaustion_seconds) and finding.rate_per_minute > 0:
        parts.append(f"no slot left in {span(finding.exhaustion_seconds)}")
    if finding.harm.blocked:
        parts.append(f"{counted(finding.harm.blocked, 'session')} waiting for it")
    return ", ".join(parts)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Say what is wrong and why."""
    reason = f" ({printable(diagnosis.reason)})" if diagnosis.reason else ""
    return f"{diagnosis.verdict}{reason}"
