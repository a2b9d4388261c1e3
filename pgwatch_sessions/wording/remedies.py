"""What to do about a finding, in this order: free the server, check the pool, fix the code, prevent it.

Measured: terminating a session frees its slot, and asyncpg's pool replaces the connection. SQLAlchemy's pool still
counts the connection as checked out. Cancelling has no effect on a session that is idle in transaction.
"""

from pgwatch_sessions.core.findings import Finding, LeakKind
from pgwatch_sessions.core.model import NONE, OTHER
from pgwatch_sessions.wording.causes import describe_site
from pgwatch_sessions.wording.client_software import ClientSoftware
from pgwatch_sessions.wording.labels import quoted_name


def remedies_of(finding: Finding, software: ClientSoftware) -> tuple[str, ...]:
    """Return what to do, one text for each step. A maintenance tool has no pool and no code to fix."""
    steps = [_terminate(finding)]
    if not finding.is_tool:
        steps += [_check_the_pool(software), _fix_the_code(finding, software), _prevent(finding, software)]
    return tuple(filter(None, steps))


def _terminate(finding: Finding) -> str:
    if not finding.sessions:
        return ""
    rolled_back = " Uncommitted changes are rolled back." if finding.harm.xid_age_max is not None else ""
    how = (
        "Each statement given here terminates one session: it checks pid and backend_start, so it cannot hit another. "
        f"pg_cancel_backend has no effect, because no statement is running.{rolled_back}"
    )
    if finding.is_tool:
        return f"Now: ask the person who runs it to commit, roll back or disconnect, or terminate the session. {how}"
    if finding.is_leak:
        return f"Now: terminate the sessions, longest held first. {how}"
    unblocks = " Terminating them unblocks the waiting sessions." if finding.harm.blocked else ""
    return f"Now: check again in a few minutes, because the sessions may end by themselves.{unblocks} {how}"


def _check_the_pool(software: ClientSoftware) -> str:
    if software.asyncpg_pool:
        return (
            "Pool: asyncpg's pool replaces terminated connections. Restart the application if its requests still wait "
            "for a connection."
        )
    sqlalchemy = "SQLAlchemy's pool still counts terminated connections as checked out"
    if software.sqlalchemy:
        return f"Pool: {sqlalchemy}. Restart the application."
    return f"Pool: {sqlalchemy} until the application is restarted. asyncpg's own pool replaces them."


def _fix_the_code(finding: Finding, software: ClientSoftware) -> str:
    tagged = any(session.statement.tags for session in finding.evidence)
    untagged = " To see the route here, add it to each statement as a comment (sqlcommenter)."
    return f"Code: {_what_to_look_for(finding, software)}{'' if tagged else untagged}"


def _what_to_look_for(finding: Finding, software: ClientSoftware) -> str:
    site = describe_site(finding)
    match finding.key.kind:
        case LeakKind.TRANSACTION_HELD:
            return (
                f"check every way out of {site}: exception, early return, cancellation. Each must close the session. "
                "Move external calls, streams and background tasks out of the session."
            )
        case LeakKind.CONNECTION_HELD:
            calls = "`pool.acquire()`" if software.asyncpg_pool else "`acquire()`, `connect()` and AUTOCOMMIT sessions"
            return f"look for {calls} near {site}. Every way out must release the connection."
        case LeakKind.ORIGIN_GROWTH:
            return (
                "look for connections, engines and pools that are made for each request. Make them once, or close them."
            )


def _prevent(finding: Finding, software: ClientSoftware) -> str:
    if finding.key.kind is LeakKind.TRANSACTION_HELD:
        scope = ' (FastAPI from 0.121 on: `Depends(get_db, scope="function")`)' if software.may_be_fastapi else ""
        return (
            f"Prevention: a `with` block around each session{scope}, and time-outs on the pool and on external calls. "
            f"As a backstop, {_backstop(finding.key.client.user)} frees the server, but hides the leak."
        )
    block = "`async with pool.acquire()`" if software.asyncpg else "a `with` block around each connection"
    return (
        f"Prevention: {block}, one pool for the life of the process, and a time-out on waiting for a connection. "
        "Do not use idle_session_timeout as a backstop, because it terminates the pool's healthy sessions too."
    )


def _backstop(user: str) -> str:
    if user in {NONE, OTHER}:
        return "idle_in_transaction_session_timeout"
    return f"`ALTER ROLE {quoted_name(user)} SET idle_in_transaction_session_timeout = '5min'`"
