"""Findings and diagnoses, each in one line."""

import math

from pgwatch_sessions.core.findings import Diagnosis, Finding, Verdict
from pgwatch_sessions.wording.amounts import counted, duration, until_full
from pgwatch_sessions.wording.labels import HOW_HELD, client_name, printable


def finding_text(finding: Finding, *, at: float) -> str:
    """Return how many sessions are held where and for how long, how fast it grows, and what it costs.

    `at` is the server's time of the last poll.
    """
    site = printable(finding.key.site)
    parts = [f"{counted(len(finding.sessions), 'session')} {HOW_HELD[finding.key.kind]} at {site}"]
    if finding.sessions:
        held_since = finding.sessions[0].state_change
        parts.append(f"the longest for {duration(at - (finding.since if held_since is None else held_since))}")
    if finding.rate_per_minute > 0:
        parts.append(f"{finding.rate_per_minute:.1f} more per minute")
        if not math.isinf(finding.exhaustion_seconds):
            parts.append(f"out of connections {until_full(finding.exhaustion_seconds)}")
    if finding.harm.blocked:
        parts.append(f"blocks {counted(finding.harm.blocked, 'other session')}")
    return ", ".join(parts)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return the verdict with its reason: `leaking (12 held at /orders)`."""
    reason = f" ({printable(diagnosis.reason)})" if diagnosis.reason else ""
    return f"{diagnosis.verdict}{reason}"


def diagnosis_change_text(diagnosis: Diagnosis, before: Verdict | None) -> str:
    """Return the new verdict and the one before: `diagnosis of the server: leaking (12 held at /orders), was ok`."""
    subject = client_name(diagnosis.client) if diagnosis.client else "the server"
    return f"diagnosis of {subject}: {diagnosis_text(diagnosis)}{f', was {before}' if before else ''}"


def hidden_text(sessions: int) -> str:
    """Return that the monitoring role may not see the state of this many sessions."""
    return f"{counted(sessions, 'session is', 'sessions are')} hidden from the monitoring role"


def folded_text(clients: int) -> str:
    """Return that this many clients share the labels of `other`."""
    return f"{counted(clients, 'client is', 'clients are')} counted together as `other`"
