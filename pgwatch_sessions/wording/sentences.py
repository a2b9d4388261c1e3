"""Findings and diagnoses in a sentence."""

import math

from pgwatch_sessions.core.findings import Diagnosis, Finding
from pgwatch_sessions.wording.amounts import counted, duration
from pgwatch_sessions.wording.labels import HOW_HELD, printable


def finding_text(finding: Finding, *, at: float) -> str:
    """Say what is held where, how fast it grows, and what it costs. `at` is the server's time of the last poll."""
    site = printable(finding.key.site)
    parts = [f"{counted(len(finding.sessions), 'session')} {HOW_HELD[finding.key.kind]} at {site}"]
    if finding.sessions:
        held_since = finding.sessions[0].state_change
        parts.append(f"the longest for {duration(at - (finding.since if held_since is None else held_since))}")
    if finding.rate_per_minute > 0:
        parts.append(f"{finding.rate_per_minute:.1f} more per minute")
    if not math.isinf(finding.exhaustion_seconds) and finding.rate_per_minute > 0:
        parts.append(f"no slot left in {duration(finding.exhaustion_seconds)}")
    if finding.harm.blocked:
        parts.append(f"{counted(finding.harm.blocked, 'session')} waiting for it")
    return ", ".join(parts)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return the verdict with its reason in brackets."""
    reason = f" ({printable(diagnosis.reason)})" if diagnosis.reason else ""
    return f"{diagnosis.verdict}{reason}"
