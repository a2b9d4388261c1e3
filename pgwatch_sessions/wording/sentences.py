"""The sentences about findings, diagnoses and what cannot be seen. Every output takes them from here."""

from pgwatch_sessions.core.findings import Diagnosis, Finding, FindingState, Recurrence, Severity, Verdict
from pgwatch_sessions.core.model import Failure
from pgwatch_sessions.wording.amounts import NOW, ago, counted, duration, growth, span, until
from pgwatch_sessions.wording.code_lines import site_and_lines
from pgwatch_sessions.wording.failures import failure_text
from pgwatch_sessions.wording.harm import harm_parts
from pgwatch_sessions.wording.labels import HOW_HELD, VERDICT_PHRASES, client_name, printable

#: Completes the name of a server.
FULL = "refuses connections: all slots for ordinary roles are in use"
#: Completes what hides sessions: a missing privilege, or a server that does not answer.
UNSEEN = "leaks among them cannot be seen"
#: Completes sentences about sessions.
HIDDEN = "hidden from the monitoring role; GRANT pg_monitor makes them visible"


def finding_sentence(finding: Finding, *, at: float) -> str:
    """Return the one sentence on a finding: whose sessions, how many, where, how long, how fast, what they cost.

    `at` is the server's time of the last poll.
    """
    return f"{client_name(finding.key.client)}: {finding_text(finding, at=at)}"


def finding_text(finding: Finding, *, at: float) -> str:
    """Return the sentence on a finding without its client."""
    if finding.unseen_since is not None:
        return _unseen(finding, finding.unseen_since, at=at)
    if finding.recurrence is not None and not finding.is_leak:
        return _recurring(finding, finding.recurrence)
    if finding.state is FindingState.RECOVERING:
        closes = "" if finding.closes_at is None else f"; closes {until(finding.closes_at - at)} unless it leaks again"
        return f"{_all_sessions(finding)} at {printable(finding.site)} {_gone(finding)}{closes}"
    number = len(finding.sessions)
    held = _held_for(finding, at=at)
    rate, ends = growth(finding.rate_per_minute), until(finding.exhaustion_seconds)
    parts = [
        f"{counted(number, 'session')} {HOW_HELD[finding.key.kind]} at {site_and_lines(finding)}",
        f"the longest for {held}",
        *(
            ()
            if finding.configured_limit is None
            else (f"limit {duration(finding.configured_limit)} by configuration",)
        ),
        *([rate] if rate else _no_new_ones(finding, at)),
        *([f"out of connections {ends}"] if ends and (rate or ends == NOW) else ()),
        *harm_parts(finding.harm),
    ]
    if number == 1:
        parts[:2] = [f"{parts[0]} for {held}"]
    themselves = "it may still end by itself" if number == 1 else "they may still end by themselves"
    may_end = "" if finding.is_leak else f"; {themselves}"
    return ", ".join(parts) + may_end


def _unseen(finding: Finding, since: float, *, at: float) -> str:
    """Return the sentence on sessions that cannot be seen any more: how they were when they were last seen."""
    one = len(finding.sessions) == 1
    held = _held_for(finding, at=since)
    longest = f" for {held}" if one else f", the longest for {held},"
    number, were = counted(len(finding.sessions), "session"), "was" if one else "were"
    seen = f"when {'it was' if one else 'they were'} last seen {ago(at - since)}"
    return f"{number} {were} {HOW_HELD[finding.key.kind]} at {site_and_lines(finding)}{longest} {seen}: now {HIDDEN}"


def _held_for(finding: Finding, *, at: float) -> str:
    held_since = finding.sessions[0].state_change
    return duration(at - (finding.since if held_since is None else held_since))


def _no_new_ones(finding: Finding, at: float) -> list[str]:
    """Say why a finding stays critical although it does not grow any more."""
    began = [session.state_change for session in finding.sessions if session.state_change is not None]
    if finding.severity is not Severity.CRITICAL or not finding.is_leak or len(began) < 2:
        return []
    return [f"no new ones for {duration(at - max(began))}"]


def _recurring(finding: Finding, again: Recurrence) -> str:
    """Return the sentence on long holds that come back."""
    within = "hour" if again.within == 3600 else duration(again.within)
    number, times = len(finding.sessions), f"{again.holds:,} times in the last {within}"
    now = f"{counted(number, 'session')} now" if number else "no session now"
    how = f"{HOW_HELD[finding.key.kind]} at {site_and_lines(finding)}"
    parts = [
        f"{how} for {span(again.shortest, again.longest)}, {times}, {now}",
        *harm_parts(finding.harm),
    ]
    return (
        f"{', '.join(parts)}; each ends by itself: an external call, a stream or background work inside the transaction"
    )


def closed_text(finding: Finding, *, at: float) -> str:
    """Return why a finding was closed, without its client."""
    if finding.sessions:
        belongs = "session now belongs" if len(finding.sessions) == 1 else "sessions now belong"
        return f"{len(finding.sessions):,} {belongs} to another finding of this client"
    lasted = f"after {duration(at - finding.since)}"
    return f"{_all_sessions(finding)} at {printable(finding.site)} {_gone(finding)}, {lasted}"


def _all_sessions(finding: Finding) -> str:
    return "the session" if finding.total == 1 else f"all {counted(finding.total, 'session')}"


def _gone(finding: Finding) -> str:
    gone = "has ended or is used again" if finding.total == 1 else "have ended or are used again"
    if finding.configured_limit is None:
        return gone
    return f"{gone}, or held for less than {duration(finding.configured_limit)}, their limit by configuration"


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return the verdict with its reason: `leaking (12 held at /orders)`."""
    reason = f" ({printable(diagnosis.reason)})" if diagnosis.reason else ""
    return f"{diagnosis.verdict}{reason}"


def diagnosis_change_text(diagnosis: Diagnosis, before: Verdict | None) -> str:
    """Return the new verdict and the one before: `the server is leaking: orders: 12 held at /orders (it was ok)`."""
    subject = client_name(diagnosis.client) if diagnosis.client else "the server"
    reason = f": {printable(diagnosis.reason)}" if diagnosis.reason else ""
    was = f" (it was {before})" if before else ""
    return f"{subject} {VERDICT_PHRASES[diagnosis.verdict]}{reason}{was}"


def hidden_text(hidden: int, sessions: int) -> str:
    """Return what hidden sessions mean: `12 of 14 sessions are hidden …: leaks among them cannot be seen`."""
    are = "is" if hidden == 1 else "are"
    return f"{hidden:,} of {counted(sessions, 'session')} {are} hidden from the monitoring role: {UNSEEN}"


def down_text(failure: Failure) -> str:
    """Return why a server cannot be polled, and what that means."""
    return f"the server cannot be polled: {failure_text(failure)}; leaks cannot be seen until it can"


def folded_text(clients: int) -> str:
    """Return that this many clients share the labels of `other`."""
    return f"{counted(clients, 'client is', 'clients are')} counted together as `other`"
