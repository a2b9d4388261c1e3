"""What probably happened, and what to do: the words that go with a finding.

A person decides. Nothing here is ever done by the daemon, which only reads.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pgwatch_sessions.core.detection import UNKNOWN_SITE, VARIOUS
from pgwatch_sessions.core.findings import Finding, Kind
from pgwatch_sessions.core.model import NONE, OTHER, Session, SessionId, SessionState
from pgwatch_sessions.core.signs import Signs, signs_of
from pgwatch_sessions.core.statements import Kind as StatementKind
from pgwatch_sessions.core.tools import KNOWN_TOOLS, recognise

#: Relative to the project's root.
RUNBOOK = "alerts/runbooks/DatabaseConnectionLeak.md"
#: Statements given to end sessions: as many as somebody pastes.
MAX_TERMINATED = 10
#: A finding that lost so many sessions, and as many as it has, is being killed while it goes on.
_MANY_GONE = 3

_SITE_TAGS = (("route", "the route"), ("controller", "the controller"), ("job", "the job"))
_is_tool = recognise(KNOWN_TOOLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to tell a person about one finding; plain text and SQL."""

    #: The likely cause, in sentences.
    cause: str
    #: What to do, in this order.
    steps: tuple[str, ...]
    #: SQL that ends the longest held sessions, one each; a comment where there are more.
    terminate: tuple[str, ...]
    #: Where to read on: a page of the project and its anchor.
    runbook: str


def advice_of(finding: Finding, beside: Iterable[Session] = ()) -> Advice:
    """Advise on a finding; `beside` are further sessions of its client, which may show what software it is."""
    signs = signs_of((*finding.sessions, *beside))
    return Advice(
        cause=_in_sentences(rule(finding, signs) for rule in _CAUSES),
        steps=tuple(filter(None, (rule(finding, signs) for rule in _STEPS))),
        terminate=_terminations(finding.sessions),
        runbook=f"{RUNBOOK}#{finding.key.kind.replace('_', '-')}",
    )


def termination_of(identity: SessionId) -> str | None:
    """Return SQL that ends this session and never one that has its pid later; None when its start is not known."""
    if identity.backend_start is None:
        return None
    start = datetime.fromtimestamp(identity.backend_start, UTC).isoformat(" ", "microseconds").removesuffix(":00")
    return (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE pid = {identity.pid} AND backend_start = '{start}';"
    )


def _terminations(sessions: Iterable[Session]) -> tuple[str, ...]:
    statements = [sql for session in sessions if (sql := termination_of(session.id)) is not None]
    more = len(statements) - MAX_TERMINATED
    return (*statements[:MAX_TERMINATED], *([f"-- and {more} more"] if more > 0 else ()))


def _in_sentences(parts: Iterable[str]) -> str:
    return " ".join(filter(None, parts))


def _what(finding: Finding, signs: Signs) -> str:
    if _is_tool(finding.key.client.application):
        return (
            f"Somebody's tool ({finding.key.client.application}) stays in this state. "
            "Consoles, dumps and maintenance do so by intent: it is listed for its harm only."
        )
    match finding.key.kind:
        case Kind.TRANSACTION_HELD:
            return _transaction_held(finding, signs)
        case Kind.CONNECTION_HELD:
            return _connection_held(signs)
        case Kind.ORIGIN_GROWTH:
            return _origin_growth(signs)


def _transaction_held(finding: Finding, signs: Signs) -> str:
    if all(session.state is SessionState.ABORTED for session in finding.sessions) and finding.sessions:
        return (
            f"A statement failed at {place_of(finding)}, and its transaction was never rolled back: the exception "
            "left, or was swallowed, before the session was closed."
        )
    if finding.sessions and all(
        session.statement.kind is StatementKind.TRANSACTION_OPENED for session in finding.sessions
    ):
        begin = "transaction().start()" if signs.asyncpg else "begin()"
        return (
            "Transactions were opened and nothing was done in them: "
            f"`{begin}` without `async with`, or a request that was cancelled right after it."
        )
    if not finding.is_leak:
        return (
            f"Transactions stay open after {place_of(finding)} and may still end: usually an external call, a stream, "
            f"a background task or a long computation inside the transaction{_in_fastapi(signs)}."
        )
    return (
        f"Transactions were opened at {place_of(finding)} and neither committed, rolled back nor closed: a session "
        "that an exception, an early return or a cancelled request leaves open; a dependency held through a "
        f"StreamingResponse or a background task{_in_fastapi(signs)}; or an external call that never answers."
    )


def _in_fastapi(signs: Signs) -> str:
    if signs.named and not any("fastapi" in name for name in signs.named):
        return ""
    return " (FastAPI before 0.106, and from 0.118 on, keeps `Depends(get_db)` open until they end)"


def _connection_held(signs: Signs) -> str:
    if signs.asyncpg_pool:
        return "Connections were taken with asyncpg's `pool.acquire()` and never released."
    return (
        "Connections were taken from their pool outside a transaction and never handed back, as this client otherwise "
        "does: asyncpg's `pool.acquire()` without `release()`, or an AUTOCOMMIT session that is never closed."
    )


def _origin_growth(signs: Signs) -> str:
    engine = "" if signs.asyncpg_pool else ", `create_engine()` in a request, an AUTOCOMMIT session kept open"
    return (
        "A process opens connection after connection and does not come back to the earlier ones: "
        f"`connect()` without `close()`{engine}, or a new pool for each request."
    )


def place_of(finding: Finding) -> str:
    """Say where a finding's sessions come from, as closely as their statements show it."""
    site = finding.key.site
    if site in {UNKNOWN_SITE, VARIOUS}:
        return "a place that the statements do not show" if site == UNKNOWN_SITE else "several places"
    tagged = {key for session in finding.sessions for key, _ in session.statement.tags}
    kinds = (kind for key, kind in _SITE_TAGS if key in tagged)
    return f"{next(kinds, 'the function' if tagged & {'file', 'func'} else 'the statement')} `{site}`"


def _harm(finding: Finding, _signs: Signs) -> str:
    harm = finding.harm
    told = []
    if harm.blocked:
        told.append(f"{_count(harm.blocked, 'session waits', 'sessions wait')} for locks that they hold")
    if harm.xmin_age_max is not None:
        told.append(f"vacuum is held back by {_count(harm.xmin_age_max, 'transaction', 'transactions')}")
    if harm.xid_age_max is not None:
        told.append("their changes are not committed")
    return f"Meanwhile {', '.join(told)}." if told else ""


def _origins(finding: Finding, _signs: Signs) -> str:
    origins = finding.origins
    if not origins:
        return ""
    if len(origins) > 1:
        return f"They come from {len(origins)} addresses, so look at the code rather than at one process."
    vanished = "" if finding.rate_per_minute or _is_local(origins[0]) else ", or its host is gone: that looks the same"
    return f"All come from {origins[0]}: one process or host{vanished} (behind a pooler it is the pooler's address)."


def _is_local(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _gone(finding: Finding, _signs: Signs) -> str:
    gone = finding.total - len(finding.sessions)
    if not finding.rate_per_minute or gone < max(_MANY_GONE, len(finding.sessions)):
        return ""
    return (
        f"{gone} of its {finding.total} sessions have ended while new ones came. Where idle_in_transaction_session_timeout "
        "or an operator ends them, the leak goes on and the application's pool may stay exhausted "
        "(sessions_fatal and sessions_killed of pg_stat_database rise)."
    )


_Rule = Callable[[Finding, Signs], str]
_CAUSES: tuple[_Rule, ...] = (_what, _harm, _gone, _origins)


def _end_them(finding: Finding, _signs: Signs) -> str:
    if not finding.sessions:
        return ""
    lost = " What they have not committed is lost." if finding.harm.xid_age_max is not None else ""
    how = (
        "The statements name pid and backend_start, so that nobody else's session is hit. pg_cancel_backend does nothing "
        f"here, since no statement is running.{lost}"
    )
    if _is_tool(finding.key.client.application):
        return f"Ask whoever runs it to commit, roll back or leave; else end the session. {how}"
    if finding.is_leak:
        return f"Now: end the sessions, the longest held first. {how}"
    frees = " Ending them frees those that wait." if finding.harm.blocked else ""
    return f"Now: look again in a few minutes, since they may end by themselves.{frees} {how}"


def _free_the_pool(finding: Finding, signs: Signs) -> str:
    if _is_tool(finding.key.client.application):
        return ""
    if signs.asyncpg_pool:
        return (
            "Ended sessions free the server at once, and asyncpg's pool opens new ones in their place. "
            "Restart the application if requests still wait for a connection."
        )
    if signs.sqlalchemy:
        return (
            "Ended sessions free the server at once, but not SQLAlchemy's pool, which goes on counting them as checked "
            "out: restart the application."
        )
    return (
        "Ended sessions free the server at once, but not every application: SQLAlchemy's pool goes on counting them as "
        "checked out until it is restarted, asyncpg's recovers."
    )


def _in_the_code(finding: Finding, signs: Signs) -> str:
    if _is_tool(finding.key.client.application):
        return ""
    tagged = any(session.statement.tags for session in finding.sessions)
    untagged = (
        ""
        if tagged
        else (
            " Let the application write its route into a comment of each statement (sqlcommenter), and the next finding "
            "names it."
        )
    )
    match finding.key.kind:
        case Kind.TRANSACTION_HELD:
            look = f"every way out of {place_of(finding)}: exception, early return, cancellation. Each must close"
        case Kind.CONNECTION_HELD:
            look = f"`acquire()` and `connect()` before {place_of(finding)}. Each must be released"
        case Kind.ORIGIN_GROWTH:
            look = "connections, engines and pools that are made per request. They must be closed, or made once"
    return f"In the code: look for {look}.{untagged}{_held_on_purpose(finding, signs)}"


def _held_on_purpose(finding: Finding, signs: Signs) -> str:
    if finding.key.kind is not Kind.TRANSACTION_HELD or not _in_fastapi(signs):
        return ""
    return " Await external calls, streams and background work outside the session."


def _for_good(finding: Finding, signs: Signs) -> str:
    if _is_tool(finding.key.client.application):
        return ""
    if finding.key.kind is Kind.TRANSACTION_HELD:
        scope = ', `Depends(get_db, scope="function")` (FastAPI 0.121)' if _in_fastapi(signs) else ""
        return (
            f"For good: `async with Session() as session:` around each unit of work{scope}, a time-out around every "
            f"external call, and as a backstop {_backstop(finding.key.client.user)}. The backstop frees the server and "
            "hides the leak: mend it all the same."
        )
    pool = "`async with pool.acquire() as connection:`" if signs.asyncpg else "a `with` block around each connection"
    return (
        f"For good: {pool}, one engine or pool for the life of the process, and a time-out for waiting on it. "
        "idle_session_timeout is no backstop here: it ends a pool's healthy sessions as well."
    )


def _backstop(user: str) -> str:
    if user in {NONE, OTHER}:
        return "idle_in_transaction_session_timeout"
    role = user.replace('"', '""')
    return f"`ALTER ROLE \"{role}\" SET idle_in_transaction_session_timeout = '5min';`"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


_STEPS: tuple[_Rule, ...] = (_end_them, _free_the_pool, _in_the_code, _for_good)
