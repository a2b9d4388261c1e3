"""What to do about a finding, in order: the server first, then the application, the code, and for good.

Measured: ending a session frees the server and asyncpg's pool; SQLAlchemy's pool goes on counting the connection as
checked out. Cancelling does nothing to a session that is idle in transaction.
"""

from collections.abc import Callable

from pgwatch_sessions.core.findings import Finding, LeakKind
from pgwatch_sessions.core.model import NONE, OTHER
from pgwatch_sessions.wording.causes import describe_site, may_be_fastapi
from pgwatch_sessions.wording.client_software import ClientSoftware


def _end_them(finding: Finding, _signs: ClientSoftware) -> str:
    if not finding.sessions:
        return ""
    lost = " What they have not committed is rolled back." if finding.harm.xid_age_max is not None else ""
    how = (
        "Each statement names pid and backend_start, so that it hits nobody else. pg_cancel_backend does nothing here: "
        f"no statement is running.{lost}"
    )
    if finding.is_tool:
        return f"Now: ask whoever runs it to commit, roll back or leave; else end the session. {how}"
    if finding.is_leak:
        return f"Now: end the sessions, the longest held first. {how}"
    frees = " Ending them lets those go on that wait." if finding.harm.blocked else ""
    return f"Now: look again in a few minutes, since they may end by themselves.{frees} {how}"


def _free_the_pool(finding: Finding, signs: ClientSoftware) -> str:
    if finding.is_tool:
        return ""
    if signs.asyncpg_pool:
        return (
            "Then the pool: asyncpg's replaces the connections that were ended. Restart the application if its "
            "requests still wait for one."
        )
    if signs.sqlalchemy:
        return (
            "Then the pool: SQLAlchemy's goes on counting the ended connections as checked out. "
            "Restart the application."
        )
    return (
        "Then the pool: SQLAlchemy's goes on counting the ended connections as checked out until the application is "
        "restarted; asyncpg's own recovers."
    )


def _mend_the_code(finding: Finding, signs: ClientSoftware) -> str:
    if finding.is_tool:
        return ""
    tagged = any(session.statement.tags for session in finding.sessions)
    untagged = " Statements that carry their route in a comment (sqlcommenter) would name the place."
    return f"In the code: {_look_for(finding, signs)}{'' if tagged else untagged}"


def _look_for(finding: Finding, signs: ClientSoftware) -> str:
    match finding.key.kind:
        case LeakKind.TRANSACTION_HELD:
            return (
                f"follow every way out of {describe_site(finding)}: exception, early return, cancellation. Each must "
                "close the session, and external calls, streams and background work belong outside of it."
            )
        case LeakKind.CONNECTION_HELD:
            calls = "`pool.acquire()`" if signs.asyncpg_pool else "`acquire()`, `connect()` and AUTOCOMMIT sessions"
            return f"look for {calls} around {describe_site(finding)}. Each must be given back on every way out."
        case LeakKind.ORIGIN_GROWTH:
            return "look for connections, engines and pools that are made per request: make them once, or close them."


def _for_good(finding: Finding, signs: ClientSoftware) -> str:
    if finding.is_tool:
        return ""
    if finding.key.kind is LeakKind.TRANSACTION_HELD:
        scope = ', `Depends(get_db, scope="function")` in FastAPI from 0.121 on' if may_be_fastapi(signs) else ""
        return (
            f"For good: a `with` block around each session{scope}, time-outs on the pool and on external calls; as a "
            f"backstop {_backstop(finding.key.client.user)}, which frees the server but hides the leak."
        )
    block = "`async with pool.acquire()`" if signs.asyncpg else "a `with` block around each connection"
    return (
        f"For good: {block}, one pool for the life of the process, and a time-out on waiting for it. "
        "idle_session_timeout is no backstop: it ends a pool's healthy sessions as well."
    )


def _backstop(user: str) -> str:
    if user in {NONE, OTHER}:
        return "idle_in_transaction_session_timeout"
    role = user.replace('"', '""')
    return f"`ALTER ROLE \"{role}\" SET idle_in_transaction_session_timeout = '5min'`"


#: Each says its part or nothing.
REMEDIES: tuple[Callable[[Finding, ClientSoftware], str], ...] = (_end_them, _free_the_pool, _mend_the_code, _for_good)
