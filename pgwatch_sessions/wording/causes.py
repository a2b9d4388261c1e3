"""The likely cause of a finding, in sentences: what the server shows, and what usually causes it.

If the server shows the same for several causes, all of them are named. What depends on the driver, the pool or the
framework is in `stacks/`.
"""

from pgwatch_sessions.core.findings import Finding, LeakKind
from pgwatch_sessions.core.judging.detection import UNKNOWN_SITE, VARIOUS_SITES
from pgwatch_sessions.core.model import SessionState
from pgwatch_sessions.core.statements import StatementKind
from pgwatch_sessions.wording.amounts import counted, span
from pgwatch_sessions.wording.harm import held_back
from pgwatch_sessions.wording.stacks.stack import Words

#: A growing finding that has lost this many sessions, and as many as it still has, is being terminated while it grows.
_MIN_ENDED = 3

#: What a site is called if it comes from a tag with this key.
_TAGGED_SITES = (
    ("route", "the route"),
    ("controller", "the controller"),
    ("namespaced_controller", "the controller"),
    ("job", "the job"),
    ("file", "the function"),
    ("func", "the function"),
)


def cause_of(finding: Finding, words: Words) -> str:
    """Return the likely cause, then the harm that is done and where the sessions come from."""
    sentences = (
        _main_cause(finding, words),
        _last_statement(finding),
        _harm(finding),
        _ended_sessions(finding),
        _origins(finding),
        words.behind,
    )
    return " ".join(filter(None, sentences))


def describe_site(finding: Finding) -> str:
    """Return where the finding's sessions come from, for example ``the route `/orders/{id}` ``."""
    site = finding.site
    if site == UNKNOWN_SITE:
        return "an unknown place"
    if site == VARIOUS_SITES:
        return "various statements"
    shown = (session.statement for session in finding.evidence) if finding.write is None else (finding.write,)
    tagged = {key for statement in shown for key, _ in statement.tags}
    return f"{next((kind for key, kind in _TAGGED_SITES if key in tagged), 'the statement')} `{site}`"


def _main_cause(finding: Finding, words: Words) -> str:
    if finding.is_tool:
        return (
            f"{finding.key.client.application} is a maintenance tool: a console, dump or backup may stay idle or in "
            "one transaction on purpose. It is reported only because it blocks others or holds back vacuum."
        )
    match finding.key.kind:
        case LeakKind.TRANSACTION_HELD:
            return _transaction_held(finding, words)
        case LeakKind.TRANSACTION_KEPT:
            return _transaction_kept(words)
        case LeakKind.CONNECTION_HELD:
            return _connection_held(words)
        case LeakKind.ORIGIN_GROWTH:
            return _origin_growth(finding, words)


def _transaction_held(finding: Finding, words: Words) -> str:
    sessions, site = finding.evidence, describe_site(finding)
    if sessions and all(session.state is SessionState.ABORTED for session in sessions):
        return (
            f"A transaction failed at {site} and was not rolled back: the exception was ignored, or it left the code "
            "before the session was closed."
        )
    if sessions and all(session.statement.kind is StatementKind.TRANSACTION_OPENED for session in sessions):
        return (
            f"Transactions were opened and no statement followed: {words.begun}, or a request that was cancelled right "
            "after it."
        )
    if finding.recurrence is not None and not finding.is_leak:
        again = finding.recurrence
        return (
            f"Transactions at {site} stay open for {span(again.shortest, again.longest)} while the application does "
            f"something else, again and again, and each ends by itself. Usual causes: an external call, a stream or "
            f"background work inside the transaction, or {words.stays_open}. Each takes one connection out of the pool "
            "for that time."
        )
    if not finding.is_leak:
        return (
            f"Transactions stay open after {site} and may still end by themselves. Usual causes: an external call or a "
            f"long computation inside the transaction, or {words.stays_open}."
        )
    return (
        f"Transactions were opened at {site} and never committed, rolled back or closed. Usual causes: "
        f"{words.transaction_causes}."
    )


def _transaction_kept(words: Words) -> str:
    return (
        "A session runs statement after statement in one transaction that nobody ends, while other sessions of this "
        "client do end theirs. Usual causes: a thread or task that keeps its session from request to request, and a "
        f"way out without commit or rollback, or {words.stays_open}."
    )


def _connection_held(words: Words) -> str:
    return (
        "Connections were used outside a transaction and not returned to the pool, although this client normally "
        f"returns them. Usual causes: {words.connection_causes}."
    )


def _origin_growth(finding: Finding, words: Words) -> str:
    growth = "A process keeps opening connections and does not use the earlier ones again."
    if all(session.statement.kind is StatementKind.RETURNED for session in finding.evidence):
        return f"{growth} They belong to pools that are no longer used: {words.abandoned} made for each request."
    return f"{growth} Usual causes: {words.growth_causes}."


def _last_statement(finding: Finding) -> str:
    if finding.write is None:
        return ""
    return f"That is the last write that was seen in them; their last statement is `{finding.key.site}`."


def _harm(finding: Finding) -> str:
    harm, parts = finding.harm, []
    if harm.blocked:
        parts.append(f"{counted(harm.blocked, 'other session is', 'other sessions are')} blocked")
    if held_back(harm):
        parts.append(f"vacuum is held back by {held_back(harm)}")
    if harm.xid_age_max is not None:
        parts.append("uncommitted changes keep their locks")
    return f"Harm: {'; '.join(parts)}." if parts else ""


def _ended_sessions(finding: Finding) -> str:
    ended = finding.total - len(finding.sessions)
    if not finding.rate_per_minute or ended < max(_MIN_ENDED, len(finding.sessions)):
        return ""
    return (
        f"{ended} of its {finding.total} sessions have ended, but new ones keep coming. If an operator or "
        "idle_in_transaction_session_timeout terminates them, the leak goes on and the application's pool may stay "
        "exhausted. In that case sessions_killed or sessions_fatal rises in pg_stat_database."
    )


def _origins(finding: Finding) -> str:
    origins = finding.origins
    if len(origins) > 1:
        return f"The sessions come from {len(origins)} addresses, so suspect the code rather than one process."
    if not origins:
        return ""
    # A host that still opens sessions is there, and this machine cannot have vanished from the network.
    may_be_gone = not finding.rate_per_minute and not _is_local(origins[0])
    gone = ", or its host is gone from the network, which looks the same" if may_be_gone else ""
    return f"All sessions come from {origins[0]}: one process, one host or one pooler{gone}."


def _is_local(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
