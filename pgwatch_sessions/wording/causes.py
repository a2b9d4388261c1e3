"""The likely cause of a finding, in sentences: what the server shows, and what usually does that.

What the server cannot tell apart is named side by side. The drivers' and frameworks' habits were measured.
"""

from collections.abc import Callable

from pgwatch_sessions.core.findings import Finding, LeakKind
from pgwatch_sessions.core.judging.detection import UNKNOWN_SITE, VARIOUS_SITES
from pgwatch_sessions.core.model import SessionState
from pgwatch_sessions.core.statements import StatementKind
from pgwatch_sessions.wording.client_software import ClientSoftware

#: A finding that lost so many sessions, and as many as it has, is being killed while it goes on.
_MANY_GONE = 3
#: Any transaction holds vacuum back by some transactions.
_XMIN_WORTH_TELLING = 10_000

_SITE_TAGS = (
    ("route", "the route"),
    ("controller", "the controller"),
    ("file", "the function"),
    ("func", "the function"),
    ("job", "the job"),
)


def may_be_fastapi(signs: ClientSoftware) -> bool:
    """Tell whether FastAPI may be behind it: nothing says that it is another framework."""
    frameworks = [name for name in signs.named if not name.startswith(("asyncpg", "psycopg", "sqlalchemy"))]
    return not frameworks or any("fastapi" in name for name in frameworks)


def describe_site(finding: Finding) -> str:
    """Say where a finding's sessions come from, as closely as their statements show it."""
    site = finding.key.site
    if site == UNKNOWN_SITE:
        return "a place that is not shown"
    if site == VARIOUS_SITES:
        return "various statements"
    tagged = {key for session in finding.sessions for key, _ in session.statement.tags}
    return f"{next((kind for key, kind in _SITE_TAGS if key in tagged), 'the statement')} `{site}`"


def _what(finding: Finding, signs: ClientSoftware) -> str:
    if finding.is_tool:
        return (
            f"Somebody's tool ({finding.key.client.application}) stays as it is. Consoles, dumps and maintenance do so "
            "by intent: it is listed for its harm only."
        )
    match finding.key.kind:
        case LeakKind.TRANSACTION_HELD:
            return _transaction_held(finding, signs)
        case LeakKind.CONNECTION_HELD:
            return _connection_held(signs)
        case LeakKind.ORIGIN_GROWTH:
            return _origin_growth(finding, signs)


def _transaction_held(finding: Finding, signs: ClientSoftware) -> str:
    sessions = finding.sessions
    if sessions and all(session.state is SessionState.ABORTED for session in sessions):
        return (
            f"A statement failed at {describe_site(finding)} and its transaction was never rolled back: an exception "
            "left the code, or was ignored, before the session was closed."
        )
    if sessions and all(session.statement.kind is StatementKind.TRANSACTION_OPENED for session in sessions):
        begin = "asyncpg's `transaction().start()`" if signs.asyncpg else "a `begin`"
        return (
            f"Transactions were opened and nothing was done in them: {begin} outside of a `with` block, or a request "
            "that was cancelled right after it."
        )
    fastapi = " (FastAPI before 0.106 and from 0.118 on)" if may_be_fastapi(signs) else ""
    through = f"a session dependency that lives through a StreamingResponse or a background task{fastapi}"
    if not finding.is_leak:
        return (
            f"Transactions stay open after {describe_site(finding)} and may still end: usually an external call or a "
            f"long computation inside the transaction, or {through}."
        )
    return (
        f"Transactions were opened at {describe_site(finding)} and neither committed, rolled back nor closed: a "
        "session left open by an exception, an early return or a cancelled request; an external call inside the "
        f"transaction that never answers; or {through}."
    )


def _connection_held(signs: ClientSoftware) -> str:
    if signs.asyncpg_pool:
        return "Connections were acquired from asyncpg's pool and never released."
    return (
        "Connections were used outside a transaction and never handed back, as this client otherwise does: asyncpg's "
        "`pool.acquire()` without a release, a `connect()` that is never closed, or an AUTOCOMMIT session kept open."
    )


def _origin_growth(finding: Finding, signs: ClientSoftware) -> str:
    opens = "A process opens connection after connection and never comes back to the earlier ones: "
    if all(session.statement.kind is StatementKind.RETURNED for session in finding.sessions):
        return f"{opens}they lie in pools that nobody uses any more, such as an engine or a pool made for each request."
    autocommit = "" if signs.asyncpg_pool else ", or an AUTOCOMMIT session kept open"
    return f"{opens}`connect()` without a close, asyncpg's `pool.acquire()` without a release{autocommit}."


def _harm(finding: Finding, _signs: ClientSoftware) -> str:
    harm, told = finding.harm, []
    if harm.blocked:
        told.append(f"{_count(harm.blocked, 'session')} of others {'waits' if harm.blocked == 1 else 'wait'} for them")
    if (harm.xmin_age_max or 0) >= _XMIN_WORTH_TELLING:
        told.append(f"they hold vacuum back by {_count(harm.xmin_age_max or 0, 'transaction')}")
    if harm.xid_age_max is not None:
        told.append("they hold changes that are not committed, and the locks on them")
    return f"Meanwhile {'; '.join(told)}." if told else ""


def _gone(finding: Finding, _signs: ClientSoftware) -> str:
    gone = finding.total - len(finding.sessions)
    if not finding.rate_per_minute or gone < max(_MANY_GONE, len(finding.sessions)):
        return ""
    return (
        f"{gone} of its {finding.total} sessions have ended while new ones came. Where an operator or "
        "idle_in_transaction_session_timeout ends them, the leak goes on and the application's pool may stay "
        "exhausted: then sessions_killed or sessions_fatal rises in pg_stat_database."
    )


def _origins(finding: Finding, _signs: ClientSoftware) -> str:
    origins = finding.origins
    if len(origins) > 1:
        return f"They come from {len(origins)} addresses: look at the code rather than at one process."
    if not origins:
        return ""
    # New holds come from a host that lives.
    vanished = "" if finding.rate_per_minute or _is_local(origins[0]) else ", or its host is gone, which looks the same"
    return f"All come from {origins[0]}: one process or host{vanished}; behind a pooler, all come from the pooler."


def _is_local(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


#: Each says its part or nothing.
CAUSES: tuple[Callable[[Finding, ClientSoftware], str], ...] = (_what, _harm, _gone, _origins)
