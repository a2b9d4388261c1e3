"""What to do about a finding, in this order: free the server, check the pool, fix the code, prevent it.

Measured: terminating a session frees its slot on the server. What it does to the application's pool depends on the
pool, see `stacks/`. Cancelling has no effect on a session that is idle in transaction.
"""

from pgwatch_sessions.core.findings import Finding, LeakKind, Severity
from pgwatch_sessions.core.model import NONE, OTHER
from pgwatch_sessions.wording.amounts import moment
from pgwatch_sessions.wording.causes import describe_site
from pgwatch_sessions.wording.code_lines import first_line
from pgwatch_sessions.wording.labels import quoted_name
from pgwatch_sessions.wording.stacks.stack import Words
from pgwatch_sessions.wording.termination import PRIVILEGE


def remedies_of(finding: Finding, words: Words) -> tuple[str, ...]:
    """Return what to do, one text for each step. A maintenance tool has no pool and no code to fix."""
    steps = [_terminate(finding)]
    if not finding.is_tool:
        steps += [f"Pool: {words.terminated}", _fix_the_code(finding, words), _prevent(finding, words)]
    return tuple(filter(None, steps))


def _terminate(finding: Finding) -> str:
    if not finding.sessions:
        return ""
    rolled_back = " Uncommitted changes are rolled back." if finding.harm.xid_age_max is not None else ""
    how = (
        "The statement given here ends these sessions only: it checks pid and backend_start. "
        f"{PRIVILEGE} pg_cancel_backend has no effect, because no statement is running.{rolled_back}"
    )
    return f"Now: {_first_step(finding)} {how}"


def _first_step(finding: Finding) -> str:
    if finding.unseen_since is not None:
        return (
            "run `GRANT pg_monitor` for the monitoring role, and look again: the sessions have been hidden from it "
            f"since {moment(finding.unseen_since)}, and may be used again. Or terminate them unseen."
        )
    if finding.is_tool:
        return "ask the person who runs it to commit, roll back or disconnect, or terminate the session."
    if finding.recurrence is not None and not finding.is_leak:
        return (
            "nothing, while the pool has free connections: each of these sessions ends by itself. Terminate them if "
            "requests wait."
        )
    if finding.is_leak:
        return "terminate the sessions."
    if finding.severity is Severity.CRITICAL:
        return "terminate the sessions. They may end by themselves, but until then others cannot work."
    unblocks = " Terminating them unblocks the waiting sessions." if finding.harm.blocked else ""
    return f"check again in a few minutes, because the sessions may end by themselves.{unblocks}"


def _fix_the_code(finding: Finding, words: Words) -> str:
    tagged = any(session.statement.tags for session in finding.evidence)
    untagged = (
        " To see the route and the line of code here, add them to each statement as a comment "
        "(pgwatch_sessions.pools for Python, sqlcommenter for other languages)."
    )
    return f"Code: {_what_to_look_for(finding, words)}{'' if tagged else untagged}"


def _what_to_look_for(finding: Finding, words: Words) -> str:
    line = first_line(finding)
    site = describe_site(finding) + (f" ({line})" if line else "")
    match finding.key.kind:
        case LeakKind.TRANSACTION_HELD:
            return f"check every way out of {site}: exception, early return, cancellation. {words.transaction_code}"
        case LeakKind.TRANSACTION_KEPT:
            return (
                "find what keeps a session from one request to the next (a thread-local or global session, a scoped "
                f"session that is not removed), and end its transaction after each. {words.transaction_code}"
            )
        case LeakKind.CONNECTION_HELD:
            return f"look for {words.connection_code} near {site}. Every way out must return the connection."
        case LeakKind.ORIGIN_GROWTH:
            return f"look for {words.growth_code} that are made for each request. Make them once, or close them."


def _prevent(finding: Finding, words: Words) -> str:
    if finding.key.kind is LeakKind.TRANSACTION_KEPT:
        return (
            f"Prevention: {words.transaction_guard}. idle_in_transaction_session_timeout does not help here, because "
            "the session is never idle for long; transaction_timeout (PostgreSQL 17) does."
        )
    if finding.key.kind is LeakKind.TRANSACTION_HELD:
        return (
            f"Prevention: {words.transaction_guard}, and time-outs on the pool and on external calls. "
            f"As a backstop, {_backstop(finding.key.client.user)} frees the server, but hides the leak."
        )
    return (
        f"Prevention: {words.connection_guard}, one pool for the life of the process, and a time-out on waiting for a "
        "connection. Do not use idle_session_timeout as a backstop, because it terminates the pool's healthy "
        "sessions too."
    )


def _backstop(user: str) -> str:
    if user in {NONE, OTHER}:
        return "idle_in_transaction_session_timeout"
    return f"`ALTER ROLE {quoted_name(user)} SET idle_in_transaction_session_timeout = '5min'`"
